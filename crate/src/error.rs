//! What can go wrong, said to a person, with a stable code for programs.
//!
//! A message says what happened, where (file, tensor, byte) and, where there is something to do, what to do.

/// Everything that can fail. [`Error::code`] is stable; messages may improve.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, model or address does not exist.
    #[error("not found: {0}")]
    NotFound(String),
    /// Bytes are not what they were declared to be: wrong digest, cut short, too long.
    #[error("integrity: {0}")]
    Integrity(String),
    /// Browser storage cannot hold the model.
    #[error(
        "not enough storage: {needed} bytes are needed, {available} are available, {} are missing; stored models take {removable}: \
         remove one (store.list, store.remove) or free disk space",
        needed.saturating_sub(*available)
    )]
    Quota {
        /// Bytes that the download would store.
        needed: u64,
        /// Bytes that the browser still grants.
        available: u64,
        /// Bytes that stored models take.
        removable: u64,
    },
    /// The architecture (`model_type`, `general.architecture`) is not one of ours.
    #[error("unsupported architecture: {0}")]
    UnsupportedArchitecture(String),
    /// A file format, tensor type, version or setting that this engine does not read.
    #[error("unsupported format: {0}")]
    UnsupportedFormat(String),
    /// A file says something that contradicts itself or its specification.
    #[error("invalid file: {0}")]
    InvalidFile(String),
    /// A caller's argument cannot be used.
    #[error("invalid input: {0}")]
    InvalidInput(String),
    /// The prompt does not fit the context.
    #[error(
        "the prompt has {tokens} tokens and the context holds {context}: shorten it, start a new chat, or load with a larger contextLength"
    )]
    ContextOverflow {
        /// Tokens in the prompt.
        tokens: usize,
        /// Tokens that the context holds.
        context: usize,
    },
    /// Weights, cache and scratch do not fit the device.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The page has no WebGPU, or no adapter answered.
    #[error("no WebGPU: {0}")]
    NoWebGpu(String),
    /// The GPU went away while in use.
    #[error("the GPU device was lost: {0}; load the model again")]
    DeviceLost(String),
    /// A kernel or a driver failed.
    #[error("device: {0}")]
    Device(String),
    /// The server answered with an error, or the connection broke.
    #[error("network: {0}")]
    Network(String),
    /// The network was needed and may not be used.
    #[error("offline: {0}")]
    Offline(String),
    /// Reading or writing storage failed.
    #[error("storage: {0}")]
    Storage(String),
    /// The caller asked to stop.
    #[error("aborted")]
    Aborted,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A stable, lower-case code for programs; part of the public interface in Rust and JavaScript.
    pub fn code(&self) -> &'static str {
        match self {
            Error::NotFound(_) => "not_found",
            Error::Integrity(_) => "integrity",
            Error::Quota { .. } => "quota",
            Error::UnsupportedArchitecture(_) => "unsupported_architecture",
            Error::UnsupportedFormat(_) => "unsupported_format",
            Error::InvalidFile(_) => "invalid_file",
            Error::InvalidInput(_) => "invalid_input",
            Error::ContextOverflow { .. } => "context_overflow",
            Error::OutOfMemory(_) => "out_of_memory",
            Error::NoWebGpu(_) => "no_webgpu",
            Error::DeviceLost(_) => "device_lost",
            Error::Device(_) => "device",
            Error::Network(_) => "network",
            Error::Offline(_) => "offline",
            Error::Storage(_) => "storage",
            Error::Aborted => "aborted",
        }
    }
}
