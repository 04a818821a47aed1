//! Parts that the programs share: a [`server`] on loopback and the [`pages`] on it, and the length of a
//! [`second`]. The [`download`] program is here as well, but for its `main`.

pub mod download;
pub mod pages;
pub mod second;
pub mod server;
