//! Certificates for private instances, made with openssl when they are needed.

use std::fs;

use anyhow::{Context, Result};

use super::private_server::PrivateServer;

/// In `tls` below the instance's directory: an authority, what it signed for the server and a client, and another authority
/// with a client, that is not trusted. Each is a `.pem` and a `.key`.
pub fn make(instance: &PrivateServer) -> Result<()> {
    let dir = instance.dir.join("tls");
    fs::create_dir(&dir).context("create the directory of the certificates")?;
    for (authority, signed) in [("ca", ["server", "client"].as_slice()), ("other-ca", &["other-client"])] {
        let mut command = instance.command("openssl");
        command.current_dir(&dir).args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        command.args(["-nodes", "-days", "30", "-subj", &format!("/CN=sagabus {authority}")]);
        command.args(["-keyout", &format!("{authority}.key"), "-out", &format!("{authority}.pem")]);
        instance.run(&mut command)?;
        for name in signed {
            let mut command = instance.command("openssl");
            command.current_dir(&dir).args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ]);
            command.args(["-nodes", "-days", "30", "-subj", &format!("/CN={name}")]);
            command.args(["-CA", &format!("{authority}.pem"), "-CAkey", &format!("{authority}.key")]);
            command.args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]);
            command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
            instance.run(&mut command)?;
        }
    }
    Ok(())
}
