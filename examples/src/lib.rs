//! What the tutorials' programs share: a [`server`] on loopback and the [`pages`] on it,
//! the length of a [`second`], and all of the [`download`] program but its `main`.

pub mod download;
pub mod pages;
pub mod second;
pub mod server;
