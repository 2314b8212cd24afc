//! The operator's pages hold: their commands are run here, or by the scripts that make a Debian for them, or are marked as needing
//! hardware; and what they list is what the code has.

use weir_hw_tests::{Lab, weir_binary};

use crate::{ROUTER, read, root};

const PAGES: &[&str] = &["docs/install.md", "docs/doctor.md", "docs/troubleshooting.md", "docs/security.md"];

/// A line of a `sh` block.
struct Line {
    page: &'static str,
    command: String,
    mark: Option<String>,
}

fn lines() -> Vec<Line> {
    let mut all = Vec::new();
    for page in PAGES {
        let text = read(page);
        let blocks = text.split("```sh\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0));
        for line in blocks.flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>()) {
            let (command, mark) = match line.split_once(" # ") {
                Some((command, mark)) => (command.trim().to_owned(), Some(mark.to_owned())),
                None => (line.trim().to_owned(), None),
            };
            all.push(Line { page, command, mark });
        }
    }
    assert!(all.len() > 20, "the commands were not found");
    all
}

#[test]
fn marked_commands_are_run_by_the_shipping_scripts_or_need_hardware() {
    let (makefile, ci) = (read("Makefile"), read(".ci/run"));
    let scripts: String = ["deb.sh", "systemd.sh"].map(|name| read(&format!("scripts/ship/{name}"))).concat();
    for Line { page, command, mark } in lines() {
        let known = match mark.as_deref() {
            None | Some("hardware") => true,
            Some("package" | "systemd") => match command.strip_prefix("make ") {
                Some(target) => makefile.contains(&format!("\n{target}:")) && ci.contains("make "),
                None => scripts.contains(&command),
            },
            Some(_) => false,
        };
        assert!(known, "{page}: nobody runs `{command}` ({mark:?})");
    }
}

#[test]
fn all_other_commands_of_the_operators_pages_work_on_a_running_weir() {
    let lab = Lab::new();
    let router = lab.linux("");
    let (left, right) = (lab.host("10.1.0.2/24"), lab.host("10.2.0.2/24"));
    lab.wire(&left, &router, "left");
    lab.wire(&router, &right, "right");
    lab.start();
    // The device may keep its tags: the doctor would have a word about it, but no problem.
    let file = lab.directory().join("weir.toml");
    std::fs::write(&file, ROUTER).expect("write a configuration");
    let mut script = format!(
        "set -eu\nmount -t tmpfs none /run\nweir run --config {0} &\nweir=$!\n\
         for i in $(seq 100); do weir show ports >/dev/null 2>&1 && break; sleep 0.1; done\n",
        file.display()
    );
    for Line { page, command, .. } in lines().into_iter().filter(|line| line.mark.is_none()) {
        assert!(command.starts_with("weir "), "{page}: nobody runs `{command}`");
        let command = command.replace("/etc/weir/weir.toml", &file.display().to_string());
        script.push_str(&format!("{command} || {{ echo \"{page}: {command}: exit $?\"; exit 1; }}\n"));
    }
    script.push_str("kill -TERM $weir\nwait $weir\necho ended well\n");
    let binary = weir_binary();
    let directory = binary.parent().expect("a directory").display();
    let path = format!("{directory}:{}", std::env::var("PATH").expect("PATH"));
    let output = router.command("bash").args(["-c", &script]).env("PATH", path).output().expect("run bash");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("ended well"), "{script}\nsaid:\n{text}");
}

#[test]
fn every_link_of_the_operators_pages_leads_to_a_file() {
    for page in PAGES {
        let text = read(page);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for target in targets.filter(|target| !target.is_empty() && !target.contains("://")) {
            assert!(
                root().join("docs").join(target).exists(),
                "{page} links to {target}, which is not there"
            );
        }
    }
}

#[test]
fn troubleshooting_names_drop_reasons_that_exist() {
    let (page, counters) = (read("docs/troubleshooting.md"), read("docs/counters.md"));
    let table = page.split("## Packets are dropped").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows = table.expect("the table").lines().filter(|line| line.starts_with("| `"));
    let names = rows.flat_map(|row| {
        let cell = row.trim_start_matches("| ").split(" | ").next().unwrap_or_default().to_owned();
        cell.split(", ").map(|name| name.trim_matches('`').to_owned()).collect::<Vec<_>>()
    });
    let names: Vec<String> = names.collect();
    assert!(names.len() > 20);
    for name in names {
        assert!(counters.contains(&format!("| `{name}` |")), "there is no drop reason {name}");
    }
}
