//! ttrpc: requests and responses multiplexed over one stream socket.
//!
//! ```text
//! ┌───────────┬───────────┬──────┬───────┬──────────────┐
//! │ length u32│ stream u32│ type │ flags │ length bytes │   big endian
//! └───────────┴───────────┴──────┴───────┴──────────────┘
//! type 1: Request, client to server, odd stream ids   type 2: Response   type 3: stream data, which we don't use
//! ```
//!
//! Only unary calls: none of the services has another kind.

mod client;
mod codec;
mod server;
mod status;

pub use client::{Client, Closed};
pub use codec::{Frame, FrameError, HEADER, Kind, MAX_MESSAGE, decode_header, read_frame, write_frame};
pub use server::{Call, Router, Server, respond};
pub use status::{Code, Status};
