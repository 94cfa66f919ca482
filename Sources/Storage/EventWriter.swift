public import Basics
import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// Writes scalars and distributions for TensorBoard, each tag and step once, however often the run is
/// resumed.
///
/// Every start makes a new file, since a running TensorBoard reads old ones from where it stopped.
/// What earlier files of the folder hold is read first: a scalar that is there already is left out.
/// Where the past has to change (the run went back behind a step that was written, or a value of an
/// earlier step comes late, as scores may), the file gets a session start for that step, which
/// tells TensorBoard to drop what it has from there on, and the values from there on again.
///
/// One thread at a time. The files are a view of the ledger: they are flushed to the system, not to
/// the disk, and can be made again.
public final class EventWriter {
    /// The folder, for instance `RUN/events/train`.
    public let directory: String
    /// Bytes that are collected before the system gets them.
    public static let bufferBytes = 1 << 16

    private var descriptor: Int32 = -1
    private var buffer: [UInt8] = []
    /// What a reader of all files has, by tag.
    private var known: [String: Series] = [:]
    private var newestStep: Int { known.values.compactMap(\.points.last?.step).max() ?? Int.min }
    private var path = ""

    /// The values of one tag, by step.
    private struct Series {
        struct Point {
            let step: Int
            let time: Double
            let value: Float
        }

        var points: [Point] = []

        /// The place of the first point that is not before a step.
        func place(of step: Int) -> Int {
            if let last = points.last, last.step < step { return points.count }
            var (low, high) = (0, points.count)
            while low < high {
                let middle = (low + high) / 2
                if points[middle].step < step { low = middle + 1 } else { high = middle }
            }
            return low
        }

        func contains(_ step: Int) -> Bool {
            let place = place(of: step)
            return place < points.count && points[place].step == step
        }

        mutating func insert(_ point: Point) {
            let place = place(of: point.step)
            if place < points.count, points[place].step == point.step {
                points[place] = point
            } else {
                points.insert(point, at: place)
            }
        }

        mutating func drop(from step: Int) { points.removeSubrange(place(of: step)...) }
    }

    /// Opens a folder for writing; the file is made with the first scalar.
    ///
    /// - Parameters:
    ///   - lastStep: the last step that counts: what earlier files hold beyond it is dropped.
    /// - Throws: ``StorageError`` with code `io`.
    public init(directory: String, lastStep: Int = .max) throws(StorageError) {
        self.directory = directory
        try SystemFiles().createDirectory(directory)
        for name in try SystemFiles().list(directory) where name.contains("tfevents") {
            guard let data = FileManager.default.contents(atPath: directory + "/" + name) else {
                continue
            }
            for record in RecordFrame.decode(Array(data)) {
                guard let event = TensorBoardEvent(decoding: record) else { continue }
                replay(event)
            }
        }
        if newestStep > lastStep {
            drop(from: lastStep + 1)
            try begin()
            let now = Date().timeIntervalSince1970
            put(TensorBoardEvent(time: now, step: lastStep + 1, content: .start))
            try flush()
        }
    }

    deinit {
        // Whoever needs to know that the last bytes were written calls close().
        try? close()
    }

    /// Whether a reader of the folder has a value for a tag at a step.
    public func contains(tag: String, step: Int) -> Bool {
        known[tag]?.contains(step) ?? false
    }

    /// Adds values of one step.
    ///
    /// A value that is there already, for the same tag and step, is left out.
    ///
    /// - Parameters:
    ///   - time: seconds since 1970.
    /// - Throws: ``StorageError`` with code `diskFull` or `io`. Then let the writer go; one that is
    ///   opened later finds out what is missing.
    public func add(
        step: Int, time: Double, _ scalars: [(tag: String, value: Double)]
    ) throws(StorageError) {
        let new = scalars.filter { !contains(tag: $0.tag, step: step) }
        guard !new.isEmpty else { return }
        try begin()
        let isLate = step < newestStep
        for scalar in new {
            known[scalar.tag, default: Series()].insert(
                Series.Point(step: step, time: time, value: Float(scalar.value)))
        }
        if isLate {
            put(TensorBoardEvent(time: time, step: step, content: .start))
            putAll(from: step)
        } else {
            let scalars = new.map {
                TensorBoardEvent.Scalar(tag: $0.tag, value: Float($0.value))
            }
            put(TensorBoardEvent(time: time, step: step, content: .scalars(scalars)))
        }
        if buffer.count >= Self.bufferBytes { try flush() }
    }

    /// Adds distributions of one step, which must not have been added before.
    ///
    /// - Parameter time: seconds since 1970.
    /// - Throws: as ``add(step:time:_:)``.
    public func add(
        step: Int, time: Double, histograms: [(tag: String, values: Histogram)]
    ) throws(StorageError) {
        try begin()
        put(
            TensorBoardEvent(
                time: time, step: step,
                content: .histograms(histograms.map { .init(tag: $0.tag, values: $0.values) })))
        if buffer.count >= Self.bufferBytes { try flush() }
    }

    /// Hands everything added so far to the system, so that a reader sees it.
    public func flush() throws(StorageError) {
        guard descriptor >= 0 else { return }
        var done = 0
        while done < buffer.count {
            let put = buffer.withUnsafeBytes {
                write(descriptor, $0.baseAddress! + done, $0.count - done)
            }
            if put < 0 && errno == EINTR { continue }
            guard put > 0 else {
                let error = systemError("cannot write", path)
                buffer.removeFirst(done)
                throw error
            }
            done += put
        }
        buffer.removeAll(keepingCapacity: true)
    }

    /// Flushes and ends the file.
    public func close() throws(StorageError) {
        try flush()
        if descriptor >= 0 {
            _ = Glibc.close(descriptor)
            descriptor = -1
        }
    }

    private func replay(_ event: TensorBoardEvent) {
        switch event.content {
        case .scalars(let scalars):
            for scalar in scalars {
                known[scalar.tag, default: Series()].insert(
                    Series.Point(step: event.step, time: event.time, value: scalar.value))
            }
        case .start: drop(from: event.step)
        case .version, .histograms, .other: break
        }
    }

    private func drop(from step: Int) {
        for tag in Array(known.keys) { known[tag]?.drop(from: step) }
    }

    /// Makes this start's file, unless it is there.
    private func begin() throws(StorageError) {
        guard descriptor < 0 else { return }
        // Readers take files in the order of their names: the number after "tfevents." must grow
        // from start to start, also within one second or when the clock goes back.
        let now = Date().timeIntervalSince1970
        let newest =
            try SystemFiles().list(directory)
            .compactMap { name -> Int? in
                let parts = name.split(separator: ".")
                guard let at = parts.firstIndex(of: "tfevents"), at + 1 < parts.count else {
                    return nil
                }
                return Int(parts[at + 1])
            }.max() ?? 0
        var stamp = max(Int(now), newest + 1)
        let host = ProcessInfo.processInfo.hostName
        repeat {
            let digits = String(stamp)
            let zeros = String(repeating: "0", count: max(0, 10 - digits.count))
            path = "\(directory)/events.out.tfevents.\(zeros)\(digits).\(host).\(getpid()).0"
            descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0o644)
            stamp += 1
        } while descriptor < 0 && errno == EEXIST
        guard descriptor >= 0 else { throw systemError("cannot create", path) }
        put(TensorBoardEvent(time: now, step: 0, content: .version("brain.Event:2")))
    }

    /// Writes what is known from a step on, again, in order.
    private func putAll(from step: Int) {
        var later: [Int: (time: Double, scalars: [TensorBoardEvent.Scalar])] = [:]
        for tag in known.keys.sorted() {
            guard let series = known[tag] else { continue }
            for point in series.points[series.place(of: step)...] {
                later[point.step, default: (point.time, [])].scalars.append(
                    TensorBoardEvent.Scalar(tag: tag, value: point.value))
            }
        }
        for step in later.keys.sorted() {
            guard let (time, scalars) = later[step] else { continue }
            put(TensorBoardEvent(time: time, step: step, content: .scalars(scalars)))
        }
    }

    private func put(_ event: TensorBoardEvent) {
        buffer.append(contentsOf: RecordFrame.encode(event.encoded))
    }
}
