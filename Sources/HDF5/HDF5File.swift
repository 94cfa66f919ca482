internal import CHDF5
internal import Foundation
internal import Synchronization

/// A file of named arrays, as libhdf5 and h5py read and write them (HDF5 File Format Specification 2.0).
///
/// Data sets lie at the root. From any thread: calls wait for one another, since the library is made for
/// one thread.
public final class HDF5File: Sendable {
    /// What a data set's elements are.
    public enum Element: Sendable {
        /// 32-bit floating point.
        case float
        /// 64-bit signed integers.
        case integer
        /// UTF-8 text of any length.
        case text
    }

    private static let library = Mutex(())

    /// The file's path.
    public let path: String
    private let file: Mutex<hid_t>

    // MARK: Opening and closing

    /// Begins a file that does not exist yet.
    ///
    /// - Throws: ``HDF5Error`` with code `exists` or `io`.
    public init(creating path: String) throws(HDF5Error) {
        guard !FileManager.default.fileExists(atPath: path) else {
            throw HDF5Error(.exists, "\(path) exists already; name another file or remove it")
        }
        self.path = path
        file = Mutex(
            try Self.using {
                // Fails where somebody else has made it meanwhile.
                H5Fcreate(path, lineup_h5_new(), 0, 0)
            } orThrow: {
                HDF5Error(.io, "\(path) cannot be made: \($0)")
            })
    }

    /// Opens a file for reading.
    ///
    /// - Throws: ``HDF5Error`` with code `notFound` or `corrupt`.
    public init(reading path: String) throws(HDF5Error) {
        guard FileManager.default.fileExists(atPath: path) else {
            throw HDF5Error(.notFound, "\(path) does not exist; name an HDF5 file")
        }
        self.path = path
        file = Mutex(
            try Self.using {
                H5Fopen(path, lineup_h5_read_only(), 0)
            } orThrow: {
                HDF5Error(.corrupt, "\(path) is no whole HDF5 file (\($0)); make it again")
            })
    }

    deinit { try? close() }

    /// Writes everything out; nothing can be done with the file afterwards.
    ///
    /// - Throws: ``HDF5Error`` with code `io` where the rest cannot be written.
    public func close() throws(HDF5Error) {
        let open = file.withLock { file in
            defer { file = -1 }
            return file
        }
        guard open >= 0 else { return }
        _ = try Self.using {
            let flushed = H5Fflush(open, H5F_SCOPE_LOCAL)
            // A file whose end cannot be written must not stay open: its name may be used again.
            let closed = H5Fclose(open)
            return min(flushed, closed)
        } orThrow: {
            HDF5Error(.io, "\(path) is not whole: \($0)")
        }
    }

    // MARK: What is there

    /// Names of the data sets at the root, ascending.
    public var names: [String] {
        get throws(HDF5Error) {
            let file = try handle()
            return try Self.library.withLock { _ throws(HDF5Error) in
                lineup_h5_be_quiet()
                let count = Int(lineup_h5_link_count(file))
                guard count >= 0 else { throw unreadable("the list of its data sets") }
                var names: [String] = []
                for place in 0..<count {
                    var name = [CChar](repeating: 0, count: 1 + Self.nameBytesMax)
                    guard
                        H5Lget_name_by_idx(
                            file, ".", H5_INDEX_NAME, H5_ITER_INC, hsize_t(place), &name,
                            name.count, 0) >= 0
                    else { throw unreadable("the list of its data sets") }
                    names.append(
                        String(
                            decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) },
                            as: UTF8.self))
                }
                return names
            }
        }
    }

    private static let nameBytesMax = 1023

    /// Lengths of a data set's axes; empty for a single value.
    ///
    /// - Throws: ``HDF5Error`` with code `notFound` or `corrupt`.
    public func shape(of name: String) throws(HDF5Error) -> [Int] {
        try with(name) { _, space throws(HDF5Error) in try extent(of: space, name) }
    }

    private func extent(of space: hid_t, _ name: String) throws(HDF5Error) -> [Int] {
        let rank = H5Sget_simple_extent_ndims(space)
        guard rank >= 0 else { throw unreadable("'\(name)'") }
        var lengths = [hsize_t](repeating: 0, count: Int(rank))
        H5Sget_simple_extent_dims(space, &lengths, nil)
        return lengths.map { Int(clamping: $0) }
    }

    // MARK: Writing

    /// Reserves a data set of zeros, whose rows are written afterwards.
    ///
    /// - Throws: ``HDF5Error`` with code `io`, also where the name is taken.
    public func create(
        _ name: String, of element: Element, shape: [Int]
    ) throws(HDF5Error) {
        let file = try handle()
        let lengths = shape.map { hsize_t($0) }
        _ = try Self.using {
            let space =
                lengths.isEmpty
                ? H5Screate(H5S_SCALAR) : H5Screate_simple(Int32(lengths.count), lengths, nil)
            defer { H5Sclose(space) }
            let type = Self.stored(element)
            defer { H5Tclose(type) }
            let links = lineup_h5_names()
            defer { H5Pclose(links) }
            let set = H5Dcreate2(file, name, type, space, links, 0, 0)
            return set < 0 ? -1 : H5Dclose(set)
        } orThrow: {
            HDF5Error(.io, "'\(name)' cannot be put into \(path): \($0)")
        }
    }

    /// Writes some rows of a data set of floats.
    ///
    /// - Parameters:
    ///   - values: row-major.
    ///   - rows: along the first axis.
    /// - Throws: ``HDF5Error``.
    public func write(
        _ values: UnsafeBufferPointer<Float>, rows: Range<Int>, of name: String
    ) throws(HDF5Error) {
        try transfer(rows, of: name, count: values.count) { set, memory, space in
            H5Dwrite(set, lineup_h5_float32(), memory, space, 0, values.baseAddress)
        }
    }

    /// Puts an array of floats into the file.
    ///
    /// - Parameter values: row-major, as many as the shape says.
    /// - Throws: ``HDF5Error``.
    public func write(_ values: [Float], shape: [Int], as name: String) throws(HDF5Error) {
        try create(name, of: .float, shape: shape)
        try transfer(nil, of: name, count: values.count) { set, memory, space in
            H5Dwrite(set, lineup_h5_float32(), memory, space, 0, values)
        }
    }

    /// Puts an array of integers into the file.
    ///
    /// - Parameter values: row-major, as many as the shape says.
    /// - Throws: ``HDF5Error``.
    public func write(_ values: [Int], shape: [Int], as name: String) throws(HDF5Error) {
        try create(name, of: .integer, shape: shape)
        let values = values.map { Int64($0) }
        try transfer(nil, of: name, count: values.count) { set, memory, space in
            H5Dwrite(set, lineup_h5_int64(), memory, space, 0, values)
        }
    }

    /// Puts an array of texts into the file.
    ///
    /// - Parameter values: row-major, as many as the shape says; a byte of value zero ends a text early.
    /// - Throws: ``HDF5Error``.
    public func write(_ values: [String], shape: [Int], as name: String) throws(HDF5Error) {
        try create(name, of: .text, shape: shape)
        let copies = values.map { strdup($0) }
        defer { for copy in copies { free(copy) } }
        let type = Self.library.withLock { _ in Self.stored(.text) }
        defer { _ = Self.library.withLock { _ in H5Tclose(type) } }
        try transfer(nil, of: name, count: values.count) { set, memory, space in
            H5Dwrite(set, type, memory, space, 0, copies)
        }
    }

    // MARK: Reading

    /// Some rows of a data set of numbers as floats, rounded where the file has more digits.
    ///
    /// - Parameters:
    ///   - rows: along the first axis; nil for all.
    /// - Returns: row-major.
    /// - Throws: ``HDF5Error``, with code `mismatch` for texts and rows that are not there.
    public func floats(
        of name: String, rows: Range<Int>? = nil
    ) throws(HDF5Error) -> [Float] {
        try read(name, rows: rows, isNumber: true, zero: Float(0)) { set, memory, space, values in
            H5Dread(set, lineup_h5_float32(), memory, space, 0, values)
        }
    }

    /// A data set of integers, row-major.
    ///
    /// - Throws: ``HDF5Error``.
    public func integers(of name: String) throws(HDF5Error) -> [Int] {
        try read(name, rows: nil, isNumber: true, zero: Int64(0)) { set, memory, space, values in
            H5Dread(set, lineup_h5_int64(), memory, space, 0, values)
        }.map { Int($0) }
    }

    /// A data set of texts, of fixed or any length, row-major.
    ///
    /// - Throws: ``HDF5Error``, with code `corrupt` for bytes that are not UTF-8.
    public func texts(of name: String) throws(HDF5Error) -> [String] {
        try with(name) { set, space throws(HDF5Error) in
            let count = try extent(of: space, name).reduce(1, *)
            let type = H5Dget_type(set)
            defer { H5Tclose(type) }
            guard H5Tget_class(type) == H5T_STRING else {
                throw mismatch(name, "holds no texts")
            }
            guard H5Tis_variable_str(type) > 0 else {
                let length = H5Tget_size(type)
                var bytes = [UInt8](repeating: 0, count: count * length)
                guard H5Dread(set, type, 0, 0, 0, &bytes) >= 0 else {
                    throw unreadable("'\(name)'")
                }
                return try (0..<count).map { place throws(HDF5Error) in
                    let text = bytes[place * length..<(place + 1) * length]
                    return try Self.decoded(text.prefix { $0 != 0 }, name, path)
                }
            }
            var pointers = [UnsafeMutablePointer<CChar>?](repeating: nil, count: count)
            guard H5Dread(set, type, 0, 0, 0, &pointers) >= 0 else { throw unreadable("'\(name)'") }
            defer { H5Dvlen_reclaim(type, space, 0, &pointers) }
            return try pointers.map { pointer throws(HDF5Error) in
                guard let pointer else { return "" }
                let bytes = UnsafeRawBufferPointer(start: pointer, count: strlen(pointer))
                return try Self.decoded(bytes, name, path)
            }
        }
    }

    private static func decoded(
        _ bytes: some Collection<UInt8>, _ name: String, _ path: String
    ) throws(HDF5Error) -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw HDF5Error(
                .corrupt, "'\(name)' of \(path) holds text that is not UTF-8; store it as UTF-8")
        }
        return text
    }

    // MARK: The library

    private func handle() throws(HDF5Error) -> hid_t {
        let handle = file.withLock { $0 }
        guard handle >= 0 else { throw HDF5Error(.io, "\(path) is closed") }
        return handle
    }

    /// Calls the library, and says what it says where it answers with a negative number.
    private static func using<Answer: SignedInteger & Sendable>(
        _ body: () -> Answer, orThrow error: (String) -> HDF5Error
    ) throws(HDF5Error) -> Answer {
        try library.withLock { _ throws(HDF5Error) in
            lineup_h5_be_quiet()
            let answer = body()
            guard answer < 0 else { return answer }
            var text = [CChar](repeating: 0, count: 200)
            lineup_h5_explain(&text)
            let why = String(
                decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            throw error(why.isEmpty ? "the library does not say why" : why)
        }
    }

    /// A new type of a data set's elements.
    private static func stored(_ element: Element) -> hid_t {
        switch element {
        case .float: return H5Tcopy(lineup_h5_stored_float32())
        case .integer: return H5Tcopy(lineup_h5_stored_int64())
        case .text:
            let type = H5Tcopy(lineup_h5_text())
            H5Tset_size(type, lineup_h5_of_any_length())
            H5Tset_cset(type, H5T_CSET_UTF8)
            return type
        }
    }

    /// Opens a data set for a moment.
    private func with<Result>(
        _ name: String, _ body: (_ set: hid_t, _ space: hid_t) throws(HDF5Error) -> Result
    ) throws(HDF5Error) -> Result {
        let file = try handle()
        return try Self.library.withLock { _ throws(HDF5Error) in
            lineup_h5_be_quiet()
            guard H5Lexists(file, name, 0) > 0 else {
                throw HDF5Error(.notFound, "\(path) has no data set '\(name)'")
            }
            let set = H5Dopen2(file, name, 0)
            guard set >= 0 else { throw mismatch(name, "is no data set") }
            defer { H5Dclose(set) }
            let space = H5Dget_space(set)
            guard space >= 0 else { throw unreadable("'\(name)'") }
            defer { H5Sclose(space) }
            return try body(set, space)
        }
    }

    /// Selects rows, checks how many values they are, and moves them.
    private func transfer(
        _ rows: Range<Int>?, of name: String, count: Int,
        _ move: (_ set: hid_t, _ memory: hid_t, _ space: hid_t) -> herr_t
    ) throws(HDF5Error) {
        try with(name) { set, space throws(HDF5Error) in
            let selected = try select(rows, of: space, name)
            guard selected == count else {
                throw mismatch(name, "has \(selected) values there, not \(count)")
            }
            guard selected > 0 else { return }
            let memory = H5Screate_simple(1, [hsize_t(count)], nil)
            defer { H5Sclose(memory) }
            guard move(set, memory, space) >= 0 else {
                throw HDF5Error(.io, "'\(name)' of \(path) cannot be written; is the disk full?")
            }
        }
    }

    private func read<Value>(
        _ name: String, rows: Range<Int>?, isNumber: Bool, zero: Value,
        _ move: (
            _ set: hid_t, _ memory: hid_t, _ space: hid_t, _ values: UnsafeMutablePointer<Value>
        ) -> herr_t
    ) throws(HDF5Error) -> [Value] {
        try with(name) { set, space throws(HDF5Error) in
            let type = H5Dget_type(set)
            defer { H5Tclose(type) }
            guard [H5T_FLOAT, H5T_INTEGER].contains(H5Tget_class(type)) else {
                throw mismatch(name, "holds no numbers")
            }
            let count = try select(rows, of: space, name)
            var values = [Value](repeating: zero, count: count)
            guard count > 0 else { return values }
            let memory = H5Screate_simple(1, [hsize_t(count)], nil)
            defer { H5Sclose(memory) }
            guard move(set, memory, space, &values) >= 0 else { throw unreadable("'\(name)'") }
            return values
        }
    }

    /// Selects rows along the first axis.
    ///
    /// - Returns: how many values they are.
    private func select(
        _ rows: Range<Int>?, of space: hid_t, _ name: String
    ) throws(HDF5Error) -> Int {
        let lengths = try extent(of: space, name)
        guard let rows, let first = lengths.first else { return lengths.reduce(1, *) }
        guard rows.lowerBound >= 0, rows.upperBound <= first else {
            throw mismatch(name, "has \(first) rows, not \(rows)")
        }
        let start = [hsize_t(rows.lowerBound)] + lengths.dropFirst().map { _ in 0 }
        let count = [hsize_t(rows.count)] + lengths.dropFirst().map { hsize_t($0) }
        H5Sselect_hyperslab(space, H5S_SELECT_SET, start, nil, count, nil)
        return rows.count * lengths.dropFirst().reduce(1, *)
    }

    private func mismatch(_ name: String, _ what: String) -> HDF5Error {
        HDF5Error(.mismatch, "'\(name)' of \(path) \(what)")
    }

    private func unreadable(_ what: String) -> HDF5Error {
        HDF5Error(.corrupt, "\(what) of \(path) cannot be read; the file is damaged, make it again")
    }
}
