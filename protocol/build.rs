//! Compiles the node protocol. No `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../swarm/proto/weft.proto");
    let files = protox::compile(["../swarm/proto/weft.proto"], ["../swarm/proto"])?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .skip_debug(["."])
        // One copy of it for all sessions.
        .bytes(".weft.v1.SessionMessage.shared_json")
        .bytes(".weft.v1.SessionMessage.shared_changes_json")
        .bytes(".weft.v1.CallRequest.body")
        .bytes(".weft.v1.CallResponse.body")
        .bytes(".weft.v1.Piece.data")
        .codec_path("crate::codec::BoundedCodec")
        .compile_fds(files)?;
    Ok(())
}
