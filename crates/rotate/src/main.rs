//! `relaykey-rotate`, the control side.

/// Wipes freed heap: the AWS SDK copies secrets into buffers of its own.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> std::process::ExitCode {
    relaykey_rotate::cli::run()
}
