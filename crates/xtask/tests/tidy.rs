//! The repository itself obeys its rules; see `xtask::tidy`.

use xtask::tidy::{self, Mode};

#[test]
fn the_repository_is_tidy() {
    let complaints = tidy::run(&xtask::repository(), Mode::Check).expect("the repository can be read");
    let list: Vec<String> = complaints.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "`cargo xtask tidy` complains:\n{}", list.join("\n"));
}
