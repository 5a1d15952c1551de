//! The program `controller`.
use std::sync::Arc;
fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut o = transport::profile::ProfileOptions::default();
    for a in std::env::args() { if let Some(p)=a.strip_prefix("--profile-dir=") { o.profile_dir = Some(p.into()) } if let Some(p)=a.strip_prefix("--profile=") { o.profile = Some(p.into()) } }
    let profile = transport::profile::Profile::locate(&o, |n| std::env::var_os(n))?;
    transport::connection_file::create_directories(&profile)?;
    let key = transport::random::key();
    let context = transport::Context::new(1)?;
    let ch = controller::shell::channels::Channels::bind(&context, controller::shell::channels::Binding { client_interface: "tcp://127.0.0.1".into(), engine_interface: "tcp://127.0.0.1".into(), ports: Default::default(), key: protocol::Key::new(key.clone()), curve: transport::Curve::Off })?;
    let p = ch.ports();
    let common = |x: &controller::shell::channels::Pair| protocol::connection_file::Common { ssh: String::new(), interface: "tcp://127.0.0.1".into(), registration: p.registration, control: x.control, mux: x.mux, task: x.task, iopub: x.iopub, key: key.clone(), curve_serverkey: None, location: controller::shell::channels::hostname(), pack: "json".into(), unpack: "json".into(), signature_scheme: "hmac-sha256".into() };
    let c = transport::connection_file::write(&profile.client_file(), &protocol::connection_file::ClientFile { common: common(&p.client), notification: p.notification, broadcast: p.client.broadcast, task_scheme: "leastload".into() })?;
    let e = transport::connection_file::write(&profile.engine_file(), &protocol::connection_file::EngineFile { common: common(&p.engine), hb_ping: p.hb_ping, hb_pong: p.hb_pong, broadcast: vec![p.engine.broadcast] })?;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (waker, wake) = transport::wake::waker()?;
    for s in [2, 15] { let (st, w) = (stop.clone(), waker.clone());
        unsafe { signal_hook::low_level::register(s, move || { st.store(true, std::sync::atomic::Ordering::Release); w.wake(); })?; } }
    controller::shell::run(ch, Default::default(), &stop, &wake)?;
    c.remove_if_ours()?; e.remove_if_ours()?;
    Ok(())
}
