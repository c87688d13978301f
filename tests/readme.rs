//! What the README shows is what there is.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::pem::{Ca, Folder};

#[test]
fn the_readmes_configuration_is_the_one_in_config() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let readme = read("README.md");
    let (_, rest) = readme.split_once("```toml\n").expect("a block of TOML");
    let (block, _) = rest.split_once("```").expect("the block's end");
    assert_eq!(block.trim_end(), read("config/minimal.toml").trim_end());
}

#[test]
fn the_configuration_for_production_is_sound_once_its_files_are_there() {
    let folder = Folder::new();
    let pair = Ca::new().sign(&["api.example.com"]);
    folder.write("tls/fullchain.pem", &pair.chain);
    folder.write("tls/privkey.pem", &pair.key);
    let shown = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/production.toml")).expect("it");
    let file = folder.write("ringway.toml", &shown);
    let check = |key: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.args(["check", "--config"]).arg(&file).env("TEAM_A_KEY", "a-key-of-theirs");
        command.env(key, "a-key-of-ours").output().expect("the program")
    };
    let told = check("DEEPSEEK_KEY");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told = check("ANOTHER_KEY");
    assert_eq!(told.status.code(), Some(2), "that it is read at all");
    assert!(String::from_utf8_lossy(&told.stderr).contains("DEEPSEEK_KEY"));
}
