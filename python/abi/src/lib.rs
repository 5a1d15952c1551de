//! What an engine and its Python plugin agree on.
//!
//! The plugin (`engine-python`) is a library of its own, loaded when Python is asked for, so that an engine needs no
//! libpython. The two are built apart and may be of different builds, so nothing of Rust's own crosses between them:
//! only C structures, and calls that carry [`Frame`]s. The first frame of a call says in JSON what is wanted; the
//! others are the buffers that it speaks of. Whoever is given a frame owns it and releases it in whichever thread it
//! likes.
//!
//! Both sides call the other the same way: [`Port::call`] on one side arrives at [`Service::serve`] on the other.

use std::ffi::c_void;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Changes whenever a structure or the meaning of a message changes. A plugin of another version is refused.
pub const VERSION: u32 = 1;

/// The plugin's only exported function: an [`Open`].
pub const ENTRY: &str = "commworld_python_open";

/// Starts the plugin; libpython must be loaded by then, with its names visible to all. `host` is how the plugin
/// calls the engine. Writes how the engine calls the plugin into `plugin` and returns null, or returns a text that
/// says what is wrong, ended by a zero and never freed.
pub type Open = unsafe extern "C" fn(version: u32, host: Port, plugin: *mut Port) -> *const std::ffi::c_char;

/// Memory that somebody owns.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawFrame {
    data: *const u8,
    length: usize,
    owner: *mut c_void,
    release: Option<unsafe extern "C" fn(owner: *mut c_void)>,
}

/// Takes the frames of an answer. The list belongs to the caller, the frames in it to the taker.
type Deliver = unsafe extern "C" fn(taker: *mut c_void, frames: *const RawFrame, count: usize);

/// Serves one call. The list of frames belongs to the caller, the frames in it to the one who serves.
type Serve = unsafe extern "C" fn(
    service: *const c_void,
    frames: *const RawFrame,
    count: usize,
    deliver: Deliver,
    taker: *mut c_void,
);

/// Bytes, with whatever keeps them alive; what is dropped in another library is released by its owner's.
pub struct Frame(RawFrame);

// SAFETY: the memory is only read, and what `owner` stands for is `Send` by the only constructor.
unsafe impl Send for Frame {}
// SAFETY: as above; a shared frame gives out shared slices only.
unsafe impl Sync for Frame {}

impl Frame {
    /// A frame of what `owner` holds.
    pub fn of<T: AsRef<[u8]> + Send + Sync + 'static>(owner: T) -> Frame {
        let owner = Box::new(owner);
        let bytes = T::as_ref(&owner);
        let (data, length) = (bytes.as_ptr(), bytes.len());
        // SAFETY: the owner is on the heap already and is not touched until it is dropped.
        unsafe { Frame::of_boxed(data, length, owner) }
    }

    /// A frame of memory that `owner` keeps alive. If nobody else reads it, the other side may write to it through
    /// its address, as far as `data` may be written through.
    ///
    /// # Safety
    /// `length` bytes from `data` can be read until `owner` is dropped, and nobody writes to them meanwhile but
    /// those who know that the reader may see it.
    pub unsafe fn of_memory<T: Send + Sync + 'static>(data: *const u8, length: usize, owner: T) -> Frame {
        // SAFETY: promised by the caller.
        unsafe { Frame::of_boxed(data, length, Box::new(owner)) }
    }

    /// # Safety
    /// As for [`Frame::of_memory`].
    unsafe fn of_boxed<T: Send + Sync + 'static>(data: *const u8, length: usize, owner: Box<T>) -> Frame {
        unsafe extern "C" fn release<T>(owner: *mut c_void) {
            // SAFETY: made by `Box::into_raw` below, and released once, by `Drop`.
            drop(unsafe { Box::from_raw(owner.cast::<T>()) });
        }
        Frame(RawFrame { data, length, owner: Box::into_raw(owner).cast(), release: Some(release::<T>) })
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        if self.0.length == 0 {
            return &[];
        }
        // SAFETY: its maker promised so many bytes until `release`.
        unsafe { std::slice::from_raw_parts(self.0.data, self.0.length) }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if let Some(release) = self.0.release {
            // SAFETY: the owner that belongs to this function, once.
            unsafe { release(self.0.owner) }
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.0.length)
    }
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Frame {
        Frame::of(bytes)
    }
}

/// One side of the boundary, as the other side calls it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Port {
    service: *const c_void,
    serve: Serve,
}

// SAFETY: a port is made of a `Service`, which is `Sync` and never freed.
unsafe impl Send for Port {}
// SAFETY: as above.
unsafe impl Sync for Port {}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Port")
    }
}

/// Answers the calls of the other side, on whichever thread they come.
pub trait Service: Sync + 'static {
    /// The answer to a call. A panic is answered by no frame at all.
    fn serve(&self, frames: Vec<Frame>) -> Vec<Frame>;
}

impl Port {
    /// Where `service` can be called, for the rest of the process.
    pub fn of<S: Service>(service: &'static S) -> Port {
        Port { service: std::ptr::from_ref(service).cast(), serve: serve::<S> }
    }

    /// A port that was not opened: its answers are empty.
    pub fn closed() -> Port {
        struct Nobody;
        impl Service for Nobody {
            fn serve(&self, _: Vec<Frame>) -> Vec<Frame> {
                vec![]
            }
        }
        Port::of(&Nobody)
    }

    /// Calls the other side and gives its answer; empty if the other side panicked.
    pub fn call(&self, frames: Vec<Frame>) -> Vec<Frame> {
        unsafe extern "C" fn deliver(taker: *mut c_void, frames: *const RawFrame, count: usize) {
            // SAFETY: `taker` is the vector below, which lives until the call is over; the frames are ours.
            unsafe { (*taker.cast::<Vec<Frame>>()).extend(take(frames, count)) }
        }
        let raw: Vec<RawFrame> = frames.iter().map(|frame| frame.0).collect();
        frames.into_iter().for_each(std::mem::forget); // They belong to the other side now.
        let mut answer: Vec<Frame> = vec![];
        let taker = std::ptr::from_mut(&mut answer).cast();
        // SAFETY: the function belongs to this service, and the frames are given away just above.
        unsafe { (self.serve)(self.service, raw.as_ptr(), raw.len(), deliver, taker) }
        answer
    }
}

/// # Safety
/// `count` frames can be read at `frames`; they belong to the caller, who takes them once.
unsafe fn take(frames: *const RawFrame, count: usize) -> Vec<Frame> {
    // SAFETY: promised by the caller; an index below `count` is inside.
    (0..count).map(|at| Frame(unsafe { *frames.add(at) })).collect()
}

unsafe extern "C" fn serve<S: Service>(
    service: *const c_void,
    frames: *const RawFrame,
    count: usize,
    deliver: Deliver,
    taker: *mut c_void,
) {
    // SAFETY: given away by `Port::call`.
    let frames = unsafe { take(frames, count) };
    // SAFETY: `Port::of` made the pointer from a `&'static S`.
    let service = unsafe { &*service.cast::<S>() };
    let answer = catch_unwind(AssertUnwindSafe(|| service.serve(frames))).unwrap_or_default();
    let raw: Vec<RawFrame> = answer.iter().map(|frame| frame.0).collect();
    answer.into_iter().for_each(std::mem::forget); // They belong to the caller now.
    // SAFETY: the two belong together, and the frames are given away.
    unsafe { deliver(taker, raw.as_ptr(), raw.len()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Reverse;

    impl Service for Reverse {
        fn serve(&self, mut frames: Vec<Frame>) -> Vec<Frame> {
            assert!(!frames.is_empty(), "nothing to reverse");
            frames.reverse();
            frames
        }
    }

    #[test]
    fn frames_arrive_in_order_and_come_back_without_a_copy() {
        let large = vec![7_u8; 1 << 20];
        let address = large.as_ptr();
        let answer = Port::of(&Reverse).call(vec![Frame::of(&b"head"[..]), large.into()]);
        assert_eq!(answer[0].as_ref().as_ptr(), address);
        assert_eq!(answer[1].as_ref(), b"head");
    }

    #[test]
    fn a_frame_is_released_once_wherever_it_ends() {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let released = Arc::new(AtomicUsize::new(0));
        // SAFETY: no byte of it is read.
        let frame = unsafe { Frame::of_memory(std::ptr::null(), 0, Counted(Arc::clone(&released))) };
        assert_eq!(frame.as_ref(), b"");
        let answer = Port::of(&Reverse).call(vec![frame]);
        assert_eq!(released.load(Ordering::SeqCst), 0);
        drop(answer);
        assert_eq!(released.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_panic_on_the_other_side_is_an_empty_answer() {
        assert!(Port::of(&Reverse).call(vec![]).is_empty());
    }
}
