//! The matrix, by what is asked for when it goes wrong.

mod blobs;
mod documents;
mod logins;
mod redirects;
mod wire;

use super::row::Row;

pub fn all() -> Vec<Row> {
    let groups = [wire::rows(), documents::rows(), logins::rows(), redirects::rows(), blobs::rows()];
    groups.into_iter().flatten().collect()
}
