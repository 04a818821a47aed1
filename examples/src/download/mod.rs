//! The download program, and its demonstration with 80 pictures: first one after another, then
//! with a pool of 20 workers.
//!
//! - [`list`] reads the URLs, [`names`] makes file names of them.
//! - [`fetch`] downloads one URL, all of it or nothing.
//! - [`run`] downloads many, in a loop or with a pool, until it is told to [`interrupt`].
//! - [`report`] tells what became of them.
//! - [`gallery`] is a server with pictures, and [`demo`] downloads them both ways.

pub mod demo;
pub mod failure;
pub mod fetch;
pub mod folder;
pub mod gallery;
pub mod interrupt;
pub mod list;
pub mod names;
pub mod report;
pub mod run;
