//! The `lapwing` program. Everything is in the library; see `cli`.

fn main() -> std::process::ExitCode {
    lapwing::cli::main()
}
