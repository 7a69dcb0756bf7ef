//! `relaykey`, the host agent.

/// Wipes freed heap: the AWS SDK and the SMTP client copy secrets into buffers of their own.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> std::process::ExitCode {
    relaykey::cli::run()
}
