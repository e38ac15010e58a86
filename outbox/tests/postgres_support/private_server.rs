//! A server of a test's own: with TLS, and with a pooler in transaction mode in front of it.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A cluster in a directory of its own, which goes away with it.
pub(crate) struct PrivateServer {
    directory: PathBuf,
    processes: Vec<Child>,
    /// Where the server listens, and where the pooler.
    pub port: u16,
    pub pooler: u16,
}

impl PrivateServer {
    /// Starts both.
    ///
    /// # Panics
    /// If anything is missing: the suite proves nothing without it.
    pub(crate) fn start() -> Self {
        let mut private_server =
            Self { directory: directory(), processes: Vec::new(), port: free_port(), pooler: free_port() };
        let bin = binaries();
        let data = private_server.directory.join("data");
        fs::write(private_server.directory.join("password"), "secret\n").expect("write the password");
        private_server.run(Command::new(bin.join("initdb")).arg("--pgdata").arg(&data).args([
            "--username=sagabus",
            "--auth=scram-sha-256",
            "--no-sync",
            &format!("--pwfile={}", private_server.path("password")),
        ]));
        for name in ["server", "other"] {
            private_server.run(
                Command::new("openssl").args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]).args([
                    "-subj",
                    "/CN=localhost",
                    "-addext",
                    "subjectAltName=DNS:localhost",
                    // nobody's authority but its own: as one, it would be refused as a server's certificate
                    "-addext",
                    "basicConstraints=critical,CA:FALSE",
                    "-keyout",
                    &private_server.path(&format!("{name}.key")),
                    "-out",
                    &private_server.path(&format!("{name}.crt")),
                ]),
            );
        }
        // in the clear too, for the pooler
        let rules =
            "hostssl all all 127.0.0.1/32 scram-sha-256\nhostnossl postgres sagabus 127.0.0.1/32 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), rules).expect("write the rules");
        let mut server = Command::new(bin.join("postgres"));
        server.arg("-D").arg(&data);
        for setting in [
            &format!("port={}", private_server.port),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "ssl=on",
            &format!("ssl_cert_file={}", private_server.path("server.crt")),
            &format!("ssl_key_file={}", private_server.path("server.key")),
        ] {
            server.args(["-c", setting]);
        }
        private_server.launch(&mut server, private_server.port);
        private_server.pooler();
        private_server
    }

    fn pooler(&mut self) {
        let text = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user=sagabus password=secret\n[pgbouncer]\nlisten_addr = \
             127.0.0.1\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
             default_pool_size = 3\nserver_tls_sslmode = disable\n",
            self.port, self.pooler
        );
        fs::write(self.directory.join("pooler.ini"), text).expect("write the pooler's settings");
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| Path::new(path).exists());
        let mut pooler = Command::new(program.expect("pgbouncer: apt-get install pgbouncer"));
        self.launch(pooler.arg(self.path("pooler.ini")), self.pooler);
    }

    /// The path of one of its files.
    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn run(&self, command: &mut Command) {
        let output = as_postgres(command).output().expect("start");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        own(&self.directory);
    }

    /// Starts it, and waits until it listens.
    fn launch(&mut self, command: &mut Command, port: u16) {
        own(&self.directory);
        let log = fs::File::create(self.directory.join(format!("log.{port}"))).expect("create a log");
        let mut command = as_postgres(command);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let mut child = command.spawn().expect("start");
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return self.processes.push(child);
            }
            if child.try_wait().expect("wait").is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = child.kill();
        let log = fs::read_to_string(self.directory.join(format!("log.{port}"))).unwrap_or_default();
        panic!("{command:?} does not listen: {log}");
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            // at once, but so that the server ends its children
            let _ = Command::new("kill").args(["-QUIT", &process.id().to_string()]).status();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// The same by the user that servers run as: they refuse to run as root.
fn as_postgres(command: &Command) -> Command {
    let mut other = match is_root() {
        true => {
            let mut other = Command::new("setpriv");
            other.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(command.get_program());
            other
        }
        false => Command::new(command.get_program()),
    };
    other.args(command.get_args()).current_dir("/");
    other
}

fn own(directory: &Path) {
    if is_root() {
        let owned = Command::new("chown").args(["-R", "postgres:"]).arg(directory).status();
        assert!(owned.is_ok_and(|status| status.success()), "give {} to postgres", directory.display());
    }
}

fn directory() -> PathBuf {
    let path = std::env::temp_dir().join(format!("sagabus-server-{}", std::process::id()));
    fs::create_dir(&path).expect("create a directory");
    own(&path);
    path
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("a port").port()
}

fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("a postgresql server: apt-get install postgresql");
    let bins = versions.flatten().map(|version| version.path().join("bin"));
    bins.filter(|bin| bin.join("initdb").is_file()).max().expect("initdb")
}
