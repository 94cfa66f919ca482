/// A safetensors file whose every offset, size and name has been checked.
///
/// Reads what any writer of the format makes; ``CheckpointReader`` adds what a checkpoint promises.
///
/// - SeeAlso: the safetensors format: eight bytes header length, JSON header, tensor bytes.
public struct SafetensorsFile: Sendable {
    /// The longest header that is read: the bound of the format's own library.
    public static let headerBytesMax = 100_000_000

    /// Where the file lies.
    public let path: String
    /// The pairs of `__metadata__`.
    public let metadata: [String: String]
    /// The tensors in file order; their bytes live as long as any of them is held.
    public let tensors: [CheckpointTensor]
    /// Bytes of the whole file.
    public let byteCount: Int

    /// Opens and checks a file.
    ///
    /// - Throws: ``StorageError`` with code `notFound`, `io` or `corrupt`.
    public init(path: String, files: any FileLayer = SystemFiles()) throws(StorageError) {
        let contents = try files.contents(of: path)
        let header = try Self.header(of: contents.bytes, path: path)
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
        var found: [CheckpointTensor] = []
        for index in order {
            let entry = entries[index]
            guard entry.begin == end else {
                throw Self.damaged(
                    path,
                    "tensor '\(entry.name)' begins at byte \(entry.begin), expected \(end): "
                        + (entry.begin < end ? "tensors overlap" : "there is a gap"))
            }
            end = entry.end
            let range = header.dataStart + entry.begin..<header.dataStart + entry.end
            found.append(
                CheckpointTensor(
                    name: entry.name, type: entry.type, shape: entry.shape,
                    bytes: UnsafeRawBufferPointer(rebasing: contents.bytes[range]),
                    owner: contents))
        }
        guard end == header.dataBytes else {
            throw Self.damaged(
                path,
                "tensors end at byte \(end) of \(header.dataBytes): "
                    + "\(header.dataBytes - end) bytes belong to none")
        }
        self.path = path
        metadata = pairs
        tensors = found
        byteCount = contents.bytes.count
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
        of bytes: UnsafeRawBufferPointer, path: String
    ) throws(StorageError) -> Header {
        guard bytes.count >= 8 else {
            throw damaged(path, "\(bytes.count) bytes, expected at least 8")
        }
        let length = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        guard length <= UInt64(headerBytesMax) else {
            throw damaged(
                path,
                "its first 8 bytes say a header of \(length) bytes, at most "
                    + "\(headerBytesMax) expected")
        }
        let dataStart = 8 + Int(length)
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
            fields: fields, dataStart: dataStart, dataBytes: bytes.count - dataStart)
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
                SafetensorsFile.damaged(path, "tensor '\(name)': \(what)")
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
