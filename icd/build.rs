//! How the driver is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The loader loads and unloads a driver several times while it enumerates, and again with each instance. What is
    // made once per load (the settings, the counters' page, the side tables) is never freed, since other threads may
    // be using it: it would be leaked each time. And a thread whose end still runs this library's destructors must
    // find its code. So the library stays, as the backing driver does.
    println!("cargo::rustc-link-arg-cdylib=-Wl,-z,nodelete");
}
