//! What the README shows is what there is.

use std::fs;
use std::path::Path;

#[test]
fn the_readmes_configuration_is_the_one_in_config() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let readme = read("README.md");
    let (_, rest) = readme.split_once("```toml\n").expect("a block of TOML");
    let (block, _) = rest.split_once("```").expect("the block's end");
    assert_eq!(block.trim_end(), read("config/minimal.toml").trim_end());
}
