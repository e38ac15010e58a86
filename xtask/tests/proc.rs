//! Children are reached by signals, with all they started, and do not outlive their handle.
#![allow(clippy::disallowed_methods, reason = "a test of real processes waits in real time")]

use std::cell::Cell;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use xtask::proc::Proc;

fn logs(name: &str) -> PathBuf {
    let dir = env::temp_dir().join(format!("xtask-proc-{}-{name}", process::id()));
    let _ = fs::remove_dir_all(&dir);
    dir
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// The state letter of a process, None when there is none.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come about in 10 s");
        thread::sleep(Duration::from_millis(5));
    }
}

fn grandchild(proc: &Proc) -> u32 {
    let pid = Cell::new(None);
    until("the grandchild's pid", || {
        pid.set(fs::read_to_string(proc.stdout()).ok().and_then(|text| text.trim().parse().ok()));
        pid.get().is_some()
    });
    pid.get().unwrap_or_default()
}

#[test]
fn output_goes_to_files_and_the_status_is_kept() {
    let dir = logs("output");
    let mut proc = Proc::spawn("talk", &mut shell("echo out; echo err >&2; exit 3"), &dir).unwrap();
    assert_eq!(proc.wait().unwrap().code(), Some(3));
    assert_eq!(proc.poll().unwrap().unwrap().code(), Some(3));
    assert_eq!(fs::read_to_string(proc.stdout()).unwrap(), "out\n");
    assert_eq!(fs::read_to_string(proc.stderr()).unwrap(), "err\n");
    assert!(!proc.kill9().unwrap(), "a kill after the end is not counted as one");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn kill9_takes_what_the_child_started_with_it() {
    let dir = logs("kill");
    let mut proc = Proc::spawn("parent", &mut shell("sleep 60 & echo $!; wait"), &dir).unwrap();
    let grandchild = grandchild(&proc);
    assert!(proc.kill9().unwrap());
    until("the grandchild's end", || matches!(state(grandchild), None | Some('Z')));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn stop_and_cont_reach_the_child() {
    let dir = logs("stop");
    // a shell that is stopped between its vfork and the child's exec never gets to stop
    let mut proc = Proc::spawn("sleeper", &mut shell("exec sleep 60"), &dir).unwrap();
    let pid = proc.pid();
    assert!(proc.stop().unwrap());
    until("the stop", || state(pid) == Some('T'));
    assert!(proc.wait_for(Duration::from_millis(20)).unwrap().is_none());
    assert!(proc.cont().unwrap());
    until("the continuation", || state(pid) != Some('T'));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_dropped_handle_kills_even_a_stopped_child() {
    let dir = logs("drop");
    let mut proc = Proc::spawn("parent", &mut shell("sleep 60 & echo $!; wait"), &dir).unwrap();
    let grandchild = grandchild(&proc);
    assert!(proc.stop().unwrap());
    let pid = proc.pid();
    drop(proc);
    assert_eq!(state(pid), None);
    until("the grandchild's end", || matches!(state(grandchild), None | Some('Z')));
    fs::remove_dir_all(dir).unwrap();
}
