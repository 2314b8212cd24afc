//! The README holds: what it shows is what is in the files, its links lead somewhere, and its commands are run, by the CI script or here.

#![allow(clippy::expect_used, clippy::panic)] // A step that fails is a failed test.

use std::path::{Path, PathBuf};
use std::process::Command;

use weir_hw_tests::{Lab, weir_binary};

/// Before the README's own commands: a private /run, so that the default socket is this weir's alone.
const PREAMBLE: &str = r#"
    set -eu
    mount -t tmpfs none /run
    sudo() { "$@"; }
    await() { for i in $(seq 100); do weir show ports >/dev/null 2>&1 && return; sleep 0.1; done; weir show ports; }
"#;

#[test]
fn the_readme_shows_the_demonstrations_configuration() {
    let readme = read("README.md");
    let shown = blocks(&readme, "toml");
    assert!(shown.contains(&read("demo/west.toml")), "README.md does not show demo/west.toml as it is");
}

#[test]
fn every_link_of_the_readme_leads_to_a_file() {
    let readme = read("README.md");
    let targets = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    for target in targets.filter(|target| !target.contains("://")) {
        assert!(root().join(target).exists(), "README.md links to {target}, which is not there");
    }
}

#[test]
fn every_make_target_of_the_readme_is_made_by_the_ci_script_or_listed_here() {
    let (script, makefile) = (read(".ci/run"), read("Makefile"));
    for target in commands().iter().filter_map(|line| line.strip_prefix("make ")) {
        assert!(makefile.contains(&format!("\n{target}:")), "the Makefile has no target {target}");
        // `make help` is run by the next test.
        let made =
            script.lines().any(|line| line.trim().starts_with(&format!("make {target}"))) || target == "help";
        assert!(made, ".ci/run does not run `make {target}`");
    }
}

#[test]
fn make_help_names_what_the_readme_tells_to_make() {
    let output = Command::new("make").arg("help").current_dir(root()).output().expect("run make");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for target in commands().iter().filter(|line| line.starts_with("make ")) {
        assert!(text.contains(target.as_str()), "`make help` does not list `{target}`:\n{text}");
    }
}

#[test]
fn the_commands_of_the_readme_work_with_its_first_configuration() {
    let lab = Lab::new();
    let router = lab.linux("");
    let (left, right) = (lab.host("10.1.0.2/24"), lab.host("10.2.0.2/24"));
    lab.wire(&left, &router, "eth1");
    lab.wire(&router, &right, "eth2");
    lab.start();

    let directory = lab.directory();
    let configuration = blocks(&read("README.md"), "toml").into_iter().find(|text| text.contains("eth1"));
    std::fs::write(directory.join("router.toml"), configuration.expect("a first configuration"))
        .expect("write it");

    let mut script = PREAMBLE.to_owned();
    for line in commands().iter().filter(|line| !line.starts_with("make ")) {
        assert!(line.trim_start_matches("sudo ").starts_with("weir "), "nobody runs `{line}`");
        script.push_str(line);
        script.push_str(if line.ends_with('&') { "\nweir=$!\nawait\n" } else { "\n" });
    }
    // `sudo` is a function here, so $weir is a shell around weir.
    script.push_str("kill -TERM $(pgrep -P $weir || echo $weir)\nwait $weir\necho ended well\n");

    let binary = weir_binary();
    let path = format!(
        "{}:{}",
        binary.parent().expect("a directory").display(),
        std::env::var("PATH").expect("PATH")
    );
    let output =
        router.command("bash").args(["-c", &script]).env("PATH", path).current_dir(directory).output();
    let output = output.expect("run bash");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("ended well"), "{script}\nsaid:\n{text}");
}

/// Every line of every `sh` block.
fn commands() -> Vec<String> {
    let blocks = blocks(&read("README.md"), "sh");
    assert!(blocks.len() > 3, "the README's commands were not found");
    blocks.iter().flat_map(|block| block.lines().map(str::to_owned)).filter(|line| !line.is_empty()).collect()
}

/// The fenced blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
