#!/usr/bin/env bash
# Writes Sources/Protocol/Generated from Protos. The generated code is committed, so this runs only
# when a .proto changes. Needs protoc; builds the plugin of the pinned swift-protobuf if
# PROTOC_GEN_SWIFT does not name one.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v protoc >/dev/null || {
    echo "generate-protos: protoc is missing; install the package protobuf-compiler" >&2
    exit 1
}
plugin=${PROTOC_GEN_SWIFT:-}
if [ -z "$plugin" ]; then
    swift build --product protoc-gen-swift --scratch-path .build-protoc
    plugin=$(swift build --scratch-path .build-protoc --show-bin-path)/protoc-gen-swift
fi
mkdir -p Sources/Protocol/Generated
protoc --plugin=protoc-gen-swift="$plugin" --proto_path=Protos \
    --swift_opt=Visibility=Public --swift_opt=UseAccessLevelOnImports=true \
    --swift_out=Sources/Protocol/Generated Protos/lineup.proto
