//! Our own clients in other languages, each by its own self-test. Those that others
//! wrote are in the folder of the same name, for `make clients`.
//!
//! A self-test compares every line of the golden bytes, fails over between fake
//! nodes of its own, and then uses a real node. It runs where the language's
//! tool is; where it is not, that is said, on standard error so that it is seen
//! without `--nocapture` too. Nothing is installed, and nothing is written to the tree.

#[expect(dead_code, reason = "the tests of the whole use the rest")]
mod cluster;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use cluster::Cluster;

/// How a client's self-test is run.
struct Client {
    folder: &'static str,
    tool: &'static str,
    /// Prints the tool's version.
    version: &'static str,
    /// The tool as the client needs it is there if this ends well.
    probe: &'static [&'static str],
    needs: &'static str,
    /// The test; the node's address is to follow.
    test: &'static [&'static str],
}

const PYTHON: Client = Client {
    folder: "python",
    tool: "python3",
    version: "--version",
    probe: &["-c", "import sys; sys.exit(sys.version_info < (3, 9))"],
    needs: "Python 3.9",
    test: &["-B", "selftest.py", "--live"],
};

const GO: Client = Client {
    folder: "go",
    tool: "go",
    version: "version",
    // Fails where the module asks for a newer Go, and fetches none.
    probe: &["list", "."],
    needs: "Go 1.19",
    test: &["test", "-count=1", "-v", ".", "-args", "-live"],
};

const NODE: Client = Client {
    folder: "node",
    tool: "node",
    version: "--version",
    probe: &["-e", "process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)"],
    needs: "Node 18",
    test: &["selftest.mjs", "--live"],
};

impl Client {
    fn command(&self, args: &[&str]) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(self.tool);
        command.current_dir(root.join("tools/clients").join(self.folder)).args(args);
        // No toolchain and no module is fetched, whatever Go's settings say.
        command.env("GOTOOLCHAIN", "local").env("GOPROXY", "off").env("GOFLAGS", "-mod=readonly");
        command
    }

    /// Why it cannot be tested here, if so.
    fn obstacle(&self) -> Option<String> {
        let Self { tool, needs, .. } = self;
        match self.command(&[self.version]).output() {
            Err(error) => return Some(format!("`{tool}` cannot be run ({error})")),
            Ok(output) if !output.status.success() => {
                return Some(format!("`{tool} {}` fails: {}", self.version, text(&output.stderr)));
            }
            Ok(_) => {}
        }
        match self.command(self.probe).output() {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(format!("it needs {needs} or later: {}", text(&output.stderr))),
            Err(error) => Some(format!("`{tool}` cannot be run ({error})")),
        }
    }

    fn test(&self) {
        if let Some(why) = self.obstacle() {
            return say(&format!("skipped: the client in tools/clients/{}: {why}", self.folder));
        }
        let cluster = Cluster::one(&[]);
        let mut command = self.command(self.test);
        let output = command.arg(&cluster.nodes[0].address).output().expect("it was there");
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
        println!("{stdout}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// Past the test harness, which keeps what a test that passes prints to itself.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("somebody may read it");
}

#[test]
fn python() {
    PYTHON.test();
}

#[test]
fn go() {
    GO.test();
}

#[test]
fn node() {
    NODE.test();
}
