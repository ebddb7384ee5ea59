//! Load and chat.
