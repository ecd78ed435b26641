//! The kubecamp command; everything is in the library.

fn main() -> std::process::ExitCode {
    kubecamp::cli::main()
}
