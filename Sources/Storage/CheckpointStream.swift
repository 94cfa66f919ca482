import Basics

/// Checks a checkpoint's bytes as they come, from the first to the last.
struct CheckpointStream {
    private let byteCount: Int
    /// Names the file in errors.
    private let path: String
    private var prefix: [UInt8] = []
    private var header: CheckpointHeader?
    private var position = 0
    private var tensor = 0
    private var hash = XXH64()
    private var digests = StateDigestStream()

    init(byteCount: Int, path: String) {
        self.byteCount = byteCount
        self.path = path
    }

    /// Takes the next bytes.
    ///
    /// - Throws: ``StorageError`` with code `corrupt` or `newerVersion` as soon as the header is there
    ///   and wrong.
    mutating func update(_ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        var rest = bytes
        while header == nil && !rest.isEmpty {
            let wanted = try prefix.withUnsafeBufferPointer { bytes throws(StorageError) in
                try SafetensorsLayout.headerBytes(UnsafeRawBufferPointer(bytes), path: path)
            }
            let take = min(rest.count, (wanted ?? 8) - prefix.count)
            prefix.append(contentsOf: rest[..<take])
            rest = UnsafeRawBufferPointer(rebasing: rest[take...])
            if prefix.count == wanted { try readHeader() }
        }
        guard let header else { return }
        while !rest.isEmpty {
            let current = header.layout.tensors[tensor]
            let take = min(rest.count, current.range.upperBound - position)
            hash.update(UnsafeRawBufferPointer(rebasing: rest[..<take]))
            position += take
            rest = UnsafeRawBufferPointer(rebasing: rest[take...])
            if position == current.range.upperBound {
                digests.add(current.name, digest: hash.finish())
                tensor += 1
                startTensor()
            }
        }
    }

    /// The header, once every byte has come and has the digests that it says.
    ///
    /// - Throws: ``StorageError`` with code `corrupt`.
    func finish() throws(StorageError) -> CheckpointHeader {
        guard let header, tensor == header.layout.tensors.count else {
            throw CheckpointHeader.damaged(path, "it ends after \(position) bytes")
        }
        try header.check(digests.finish(step: header.metadata.step), path: path)
        return header
    }

    private mutating func readHeader() throws(StorageError) {
        let header = try prefix.withUnsafeBufferPointer { bytes throws(StorageError) in
            try CheckpointHeader(
                prefix: UnsafeRawBufferPointer(bytes), byteCount: byteCount, path: path)
        }
        self.header = header
        position = header.layout.headerBytes
        prefix = []
        startTensor()
    }

    /// Begins the digest of the next tensor; those without bytes are done at once.
    private mutating func startTensor() {
        guard let tensors = header?.layout.tensors else { return }
        while tensor < tensors.count {
            hash = CheckpointTensor.digest(name: tensors[tensor].name, shape: tensors[tensor].shape)
            guard tensors[tensor].range.isEmpty else { return }
            digests.add(tensors[tensor].name, digest: hash.finish())
            tensor += 1
        }
    }
}
