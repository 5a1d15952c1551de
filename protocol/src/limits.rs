//! Every bound of the wire, with why.

/// Frames of one message. A broadcast of a list of arrays carries one frame an array; more than this is a
/// mistake or an attack.
pub const FRAMES_MAX: usize = 16_384;

/// Frames before the delimiter. The deepest route (a broadcast through two schedulers) has four.
pub const ROUTING_FRAMES_MAX: usize = 16;

/// Bytes of a header or parent header. Stock headers have about 250.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Bytes of metadata. A broadcast to 10,000 engines lists each of them in about 50 bytes.
pub const METADATA_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of content. Code, output and result records travel here; bulk data travels in buffers.
pub const CONTENT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of one frame, checked by ZeroMQ before it allocates: the largest array that one message can carry.
pub const FRAME_BYTES_MAX: i64 = 64 * 1024 * 1024 * 1024;

/// Nesting of JSON objects and lists in content and metadata, so that no reader runs out of stack.
pub const JSON_DEPTH_MAX: usize = 100;

/// Signatures remembered to refuse repeats; what stock peers remember.
pub const SIGNATURES_REMEMBERED: usize = 65_536;

/// Bytes of an identity that ZeroMQ can carry.
pub const IDENTITY_BYTES_MAX: usize = 255;

/// Bytes of an engine's uuid; stock ones have 36.
pub const UUID_BYTES_MAX: usize = 128;

/// Nesting of a [`crate::value::Value`].
pub const VALUE_DEPTH_MAX: usize = 64;

/// Parts of one [`crate::value::Value`]; long lists of numbers belong into arrays.
pub const VALUE_NODES_MAX: usize = 4_000_000;

/// Axes of an array; NumPy's own bound was 32 for decades.
pub const ARRAY_RANK_MAX: usize = 32;

/// Ranks that one registration may bring.
pub const WORLD_SIZE_MAX: usize = 65_536;

/// Bytes of a connection file.
pub const CONNECTION_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Requests that an engine takes from its socket before it runs them; the rest waits in ZeroMQ, and beyond that
/// in the controller. A cell that fails aborts at most so many cells behind it.
pub const ENGINE_WAITING_MAX: usize = 4096;

/// Bytes of the requests that an engine takes from its socket before it runs them. One request may exceed it.
pub const ENGINE_WAITING_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Ids of aborted requests that an engine remembers because the requests may still be under way.
pub const ABORTED_REMEMBERED_MAX: usize = 16_384;

/// Bytes of printed text that an engine gathers before it sends them, and at most sends in one message.
pub const OUTPUT_CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Messages of output that wait in an engine for a controller that does not read: 64 MiB of text. Beyond them
/// printing blocks.
pub const OUTPUT_MESSAGES_WAITING_MAX: u32 = 1024;

/// Requests of one client connection that have not been answered. A map over a million items fits; a client
/// that never stops submitting is refused before it takes the controller's memory.
pub const REQUESTS_PER_CLIENT_MAX: usize = 2_000_000;

/// Bytes of balanced tasks that the controller keeps until they end (it must be able to try them elsewhere).
pub const TASK_BYTES_MAX: usize = 16 * 1024 * 1024 * 1024;

/// Engines of one controller, joining ones included: ten times the largest job foreseen.
pub const ENGINES_MAX: usize = 100_000;

/// The largest id that an engine may ask for, so that the counter behind it never overflows.
pub const ENGINE_ID_MAX: u32 = 1_000_000_000;

/// Engines that were lost and can be taken back with their ids when they return.
pub const DEPARTED_ENGINES_REMEMBERED: usize = 4_096;

/// Ids of answered requests that each engine's queue status lists.
pub const COMPLETED_IDS_REMEMBERED: usize = 1_024;

/// Finished tasks that others can still depend on.
pub const FINISHED_TASKS_REMEMBERED: usize = 131_072;

/// Aborted ids remembered in case the abort has overtaken its task (they travel over two connections).
pub const ABORTED_IDS_REMEMBERED: usize = 4_096;

/// Messages of clients that are missed at once after a restart, because later ones have come.
pub const MISSING_MESSAGES_MAX: usize = 65_536;

/// Client sessions remembered for the cluster's status.
pub const SESSIONS_REMEMBERED: usize = 1_024;

/// Output messages that wait for one slow client before further ones are dropped for it. A burst of a thousand
/// ranks that print a hundred lines each fits.
pub const OUTPUT_MESSAGES_PER_CLIENT_MAX: u32 = 250_000;
