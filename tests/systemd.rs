//! relaykey as a service, under a real systemd.

#[path = "lab/container.rs"]
mod container;

use container::Container;

#[test]
fn boots() {
    let c = Container::start();
    println!("{}", c.sh("systemctl is-system-running; systemctl --failed; ls -l /var/log/journal; ss -ltn; systemctl is-enabled postfix; cat /etc/postfix/main.cf"));
    println!("{}", c.console());
}
