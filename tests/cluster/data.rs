//! Bulk data between client and engines.

use client::{ArrayValue, DType, Value};
use tests::{Engines, TestCluster, resident_mib, wait_until};

/// 200 MB of numbers that nobody could guess.
fn large_array() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(200_000_000);
    while bytes.len() < 200_000_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&(state >> 12).to_le_bytes());
    }
    bytes
}

#[test]
fn an_array_of_200_mb_goes_to_four_engines_and_back_and_the_controller_keeps_none_of_it() {
    let cluster = TestCluster::start(Engines::Mpi, 4);
    let client = cluster.connect();
    let base = resident_mib(cluster.controller_pid());
    let bytes = large_array();
    let length = bytes.len() as u64 / 8;
    let sent = ArrayValue::new(DType::F64, vec![length], bytes.into()).expect("length and shape agree");

    client
        .all()
        .push(&[("a", Value::Array(sent.clone()))])
        .expect("it can be sent")
        .get()
        .expect("it arrives");
    for id in client.ids() {
        // One engine after the other, so that the test needs two copies in memory and not five.
        match client.direct(id).pull("a").expect("it can be asked").get_one().expect("it comes back") {
            Value::Array(came) => assert!(came == sent, "engine {id} holds another array"),
            other => panic!("{other:?}"),
        }
    }
    wait_until("the controller has given the memory back", || {
        resident_mib(cluster.controller_pid()) < base + 30.0
    });
}

#[test]
fn every_element_type_is_scattered_and_gathered_unchanged() {
    let cluster = TestCluster::start(Engines::Mpi, 3);
    let client = cluster.connect();
    for dtype in DType::ALL {
        let bytes: Vec<u8> = match dtype {
            DType::Bool => (0..7).map(|index| index % 2).collect(),
            _ => (0..7 * dtype.size()).map(|index| (index % 100) as u8).collect(),
        };
        let sent = Value::Array(ArrayValue::new(dtype, vec![7], bytes.into()).expect("seven elements"));
        client.all().scatter("part", &sent).expect("it can be sent").get().expect("it arrives");
        assert_eq!(client.all().gather("part").expect("it comes back"), sent, "{dtype}");
        let lengths = client.all().pull("len(part)").expect("it can be asked").get().expect("they answer");
        assert_eq!(lengths, [Value::Int(3), Value::Int(2), Value::Int(2)], "{dtype}");
    }
}

#[test]
fn npy_files_go_in_and_come_out() {
    let cluster = TestCluster::start(Engines::Local, 2);
    let (one, two) = (cluster.profile().join("one.npy"), cluster.profile().join("two.npy"));
    let (one, two) = (one.to_str().expect("UTF-8"), two.to_str().expect("UTF-8"));
    cluster.client(&["push", "a=[[1.5, 2.5], [3.5, 4.5]]"]).ok();
    cluster.client(&["--targets", "0", "pull", "a", "--npy", one]).ok();
    cluster.client(&["push", &format!("b={one}")]).ok();
    cluster.client(&["--targets", "1", "pull", "b", "--npy", two]).ok();
    assert_eq!(std::fs::read(one).expect("written"), std::fs::read(two).expect("written"));
    assert_eq!(
        cluster.client(&["--targets", "1", "pull", "b", "--json"]).ok().trim(),
        "[[[1.5,2.5],[3.5,4.5]]]"
    );
}
