/// What a safetensors header says, every offset, size and name checked against the file's size.
///
/// Needs the header's bytes alone, so that a file can be checked while it arrives.
public struct SafetensorsLayout: Sendable {
    /// A tensor and its place in the file.
    public struct Tensor: Sendable {
        /// The name.
        public let name: String
        /// The type of the elements.
        public let type: TensorType
        /// The sizes, outermost first.
        public let shape: [Int]
        /// Its bytes in the file.
        public let range: Range<Int>
    }

    /// The pairs of `__metadata__`.
    public let metadata: [String: String]
    /// The tensors in file order.
    public let tensors: [Tensor]
    /// Bytes before the first tensor.
    public let headerBytes: Int

    /// Reads a header.
    ///
    /// - Parameters:
    ///   - prefix: the file's first bytes, at least the whole header.
    ///   - byteCount: of the whole file.
    ///   - path: names the file in errors.
    /// - Throws: ``StorageError`` with code `corrupt`.
    public init(
        prefix: UnsafeRawBufferPointer, byteCount: Int, path: String
    ) throws(StorageError) {
        let header = try Self.header(of: prefix, byteCount: byteCount, path: path)
        var pairs: [String: String] = [:]
        var entries: [Entry] = []
        var names: Set<String> = []
        for (key, value) in header.fields {
            guard names.insert(key).inserted else {
                throw Self.damaged(path, "'\(key)' is in the header twice, expected once")
            }
            if key == "__metadata__" {
                pairs = try Self.metadata(value, path: path)
            } else {
                entries.append(
                    try Entry(name: key, value, dataBytes: header.dataBytes, path: path))
            }
        }
        let order = entries.indices.sorted {
            (entries[$0].begin, entries[$0].end, $0) < (entries[$1].begin, entries[$1].end, $1)
        }
        var end = 0
        var found: [Tensor] = []
        for index in order {
            let entry = entries[index]
            guard entry.begin == end else {
                throw Self.damaged(
                    path,
                    "tensor '\(entry.name)' begins at byte \(entry.begin), expected \(end): "
                        + (entry.begin < end ? "tensors overlap" : "there is a gap"))
            }
            end = entry.end
            found.append(
                Tensor(
                    name: entry.name, type: entry.type, shape: entry.shape,
                    range: header.dataStart + entry.begin..<header.dataStart + entry.end))
        }
        guard end == header.dataBytes else {
            throw Self.damaged(
                path,
                "tensors end at byte \(end) of \(header.dataBytes): "
                    + "\(header.dataBytes - end) bytes belong to none")
        }
        metadata = pairs
        tensors = found
        headerBytes = header.dataStart
    }

    /// Bytes of the header of a file that begins so; nil while its first eight are not there.
    ///
    /// - Throws: ``StorageError`` with code `corrupt` for a header that is too long to be one.
    public static func headerBytes(
        _ prefix: UnsafeRawBufferPointer, path: String
    ) throws(StorageError) -> Int? {
        guard prefix.count >= 8 else { return nil }
        let length = UInt64(littleEndian: prefix.loadUnaligned(as: UInt64.self))
        guard length <= UInt64(SafetensorsFile.headerBytesMax) else {
            throw damaged(
                path,
                "its first 8 bytes say a header of \(length) bytes, at most "
                    + "\(SafetensorsFile.headerBytesMax) expected")
        }
        return 8 + Int(length)
    }

    static func damaged(_ path: String, _ what: String) -> StorageError {
        StorageError(
            .corrupt, "\(path) is not a valid safetensors file: \(what); use another copy")
    }

    private struct Header {
        let fields: [(key: String, value: HeaderJSON)]
        let dataStart: Int
        let dataBytes: Int
    }

    private static func header(
        of bytes: UnsafeRawBufferPointer, byteCount: Int, path: String
    ) throws(StorageError) -> Header {
        guard let dataStart = try headerBytes(bytes, path: path) else {
            throw damaged(path, "\(bytes.count) bytes, expected at least 8")
        }
        guard dataStart <= bytes.count else {
            throw damaged(
                path, "truncated: \(bytes.count) bytes, the header alone ends at \(dataStart)")
        }
        let parsed: HeaderJSON
        do throws(HeaderJSON.Failure) {
            parsed = try HeaderJSON.parse(UnsafeRawBufferPointer(rebasing: bytes[8..<dataStart]))
        } catch {
            throw damaged(path, "header byte \(error.offset): \(error.expected) expected")
        }
        guard case .pairs(let fields) = parsed else {
            throw damaged(path, "the header is no JSON object")
        }
        return Header(
            fields: fields, dataStart: dataStart, dataBytes: byteCount - dataStart)
    }

    private static func metadata(
        _ value: HeaderJSON, path: String
    ) throws(StorageError) -> [String: String] {
        guard case .pairs(let fields) = value else {
            throw damaged(path, "__metadata__ is no JSON object")
        }
        var pairs: [String: String] = [:]
        for (key, value) in fields {
            guard case .text(let text) = value, pairs.updateValue(text, forKey: key) == nil else {
                throw damaged(path, "metadata '\(key)' must be one text")
            }
        }
        return pairs
    }

    /// One tensor's entry of the header.
    private struct Entry {
        let name: String
        let type: TensorType
        let shape: [Int]
        let begin: Int
        let end: Int

        init(
            name: String, _ value: HeaderJSON, dataBytes: Int, path: String
        ) throws(StorageError) {
            func fail(_ what: String) -> StorageError {
                SafetensorsLayout.damaged(path, "tensor '\(name)': \(what)")
            }
            func integers(_ value: HeaderJSON?) -> [Int]? {
                guard case .list(let items)? = value else { return nil }
                let numbers = items.compactMap { item -> Int? in
                    if case .integer(let number) = item { return number }
                    return nil
                }
                return numbers.count == items.count ? numbers : nil
            }
            guard case .pairs(let fields) = value else { throw fail("no JSON object") }
            var byKey: [String: HeaderJSON] = [:]
            for field in fields {
                guard byKey.updateValue(field.value, forKey: field.key) == nil else {
                    throw fail("'\(field.key)' is there twice")
                }
            }
            guard case .text(let typeName)? = byKey["dtype"] else { throw fail("no dtype") }
            guard let type = TensorType(rawValue: typeName) else {
                let known = TensorType.allCases.map(\.rawValue).joined(separator: ", ")
                throw fail("dtype '\(typeName)', expected one of \(known)")
            }
            guard let shape = integers(byKey["shape"]) else {
                throw fail("no shape of whole numbers")
            }
            guard let offsets = integers(byKey["data_offsets"]), offsets.count == 2 else {
                throw fail("no data_offsets of two whole numbers")
            }
            guard offsets[0] <= offsets[1] else {
                throw fail("begins at byte \(offsets[0]) and ends before, at \(offsets[1])")
            }
            guard offsets[1] <= dataBytes else {
                throw fail(
                    "ends at byte \(offsets[1]) of \(dataBytes): the file is truncated")
            }
            guard let expected = CheckpointTensor.byteCount(type: type, shape: shape) else {
                throw fail("shape \(shape) is larger than any memory")
            }
            guard offsets[1] - offsets[0] == expected else {
                throw fail(
                    "\(offsets[1] - offsets[0]) bytes, \(typeName) of shape \(shape) takes "
                        + "\(expected)")
            }
            self.name = name
            self.type = type
            self.shape = shape
            begin = offsets[0]
            end = offsets[1]
        }
    }
}
