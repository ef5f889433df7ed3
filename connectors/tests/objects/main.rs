//! The source of objects against folders and an S3 service: each line once, in whatever objects it comes, across lives that end anywhere.

#![allow(clippy::unwrap_used)] // All of this file is a test.

mod hostile;
mod lives;
mod s3;
mod world;
