//! Tells the server's files that they are part of the models: their own tests stay out, which know nothing of loom.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=model");
}
