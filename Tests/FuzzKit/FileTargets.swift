import Basics
import Coordinator
import Datasets
import Foundation
import Settings
import Storage
import Synchronization

/// A disk in memory, without faults.
final class MemoryDisk: FileLayer {
    private let files = Mutex<[String: [UInt8]]>([:])

    init(_ files: [String: [UInt8]] = [:]) { self.files.withLock { $0 = files } }

    var byteCount: Int { files.withLock { $0.values.reduce(0) { $0 + $1.count } } }

    func createDirectory(_ path: String) throws(StorageError) {}
    func create(_ path: String) throws(StorageError) -> any OutputFile {
        files.withLock { $0[path] = [] }
        return File(disk: self, path: path)
    }
    func rename(_ path: String, to newPath: String) throws(StorageError) {
        files.withLock { $0[newPath] = $0.removeValue(forKey: path) }
    }
    func remove(_ path: String) throws(StorageError) { files.withLock { $0[path] = nil } }
    func exists(_ path: String) -> Bool { files.withLock { $0[path] != nil } }
    func list(_ directory: String) throws(StorageError) -> [String] {
        files.withLock { files in
            files.keys.filter { $0.hasPrefix(directory + "/") }
                .map { String($0.dropFirst(directory.count + 1)) }.sorted()
        }
    }
    func synchroniseDirectory(_ path: String) throws(StorageError) {}
    func contents(of path: String) throws(StorageError) -> FileContents {
        FileContents(copying: files.withLock { $0[path] ?? [] })
    }

    private final class File: OutputFile {
        private let disk: MemoryDisk
        private let path: String

        init(disk: MemoryDisk, path: String) {
            self.disk = disk
            self.path = path
        }
        func write(_ bytes: UnsafeRawBufferPointer) throws(StorageError) {
            let copy = Array(bytes)
            disk.files.withLock { $0[path, default: []] += copy }
        }
        func synchronise() throws(StorageError) {}
        func close() throws(StorageError) {}
    }
}

/// Valid checkpoints, small.
private func validCheckpoints() throws -> [[UInt8]] {
    try [3, 40].map { step in
        let numbers = (0..<24).map { Float($0) }
        return try numbers.withUnsafeBytes { bytes in
            let disk = MemoryDisk()
            let store = CheckpointStore(directory: "c", files: disk)
            try store.write(
                SerialisedCheckpoint(
                    [
                        CheckpointTensor(name: "network/w", shape: [4, 6], bytes: bytes),
                        CheckpointTensor(name: "network/é", shape: [24], bytes: bytes),
                        CheckpointTensor(
                            name: "optimizer/m/w", shape: [0],
                            bytes: UnsafeRawBufferPointer(rebasing: bytes[..<0])),
                    ],
                    metadata: CheckpointMetadata(
                        step: step, settingsDigest: 1, datasetDigest: 2, numericsClass: "c",
                        history: 3)))
            let contents = try disk.contents(of: store.path(step: step))
            return Array(contents.bytes)
        }
    }
}

/// Checkpoint files.
struct CheckpointTarget: FuzzTarget {
    static let name = "checkpoint"
    static let share = 500
    static let episodeFrames = 50

    private let valid: [[UInt8]]

    init() throws { valid = try validCheckpoints() }

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        for _ in 0..<frames {
            let form: Mutator.Form = random.chance(500) ? .bytes : .text
            let file = Mutator.mutate(random.pick(valid), form, others: valid, using: &random)
            log.feed(file)
            let disk = MemoryDisk(["f": file])
            guard let reader = try? CheckpointReader(path: "f", files: disk) else { continue }
            // Whatever is whole has the digests that it says, by another reading.
            let digests = StateDigests(of: reader.tensors, step: reader.metadata.step)
            guard digests == reader.digests else { throw FuzzFailure("a damaged file was taken") }
            _ = try? CheckpointReader.weightsDigest(of: "f", files: disk)
        }
    }
}

/// Checkpoints that arrive in pieces.
struct CheckpointStreamTarget: FuzzTarget {
    static let name = "checkpoint-stream"
    static let share = 300
    static let episodeFrames = 60

    private let valid: [[UInt8]]

    init() throws { valid = try validCheckpoints() }

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        var left = frames
        while left > 0 { left -= try stream(&random, most: left, log) }
    }

    private func stream(_ random: inout FuzzRandom, most: Int, _ log: FuzzLog) throws -> Int {
        let isTouched = random.chance(700)
        let whole = random.pick(valid)
        let file =
            isTouched ? Mutator.mutate(whole, .bytes, others: valid, using: &random) : whole
        let disk = MemoryDisk()
        let store = CheckpointStore(directory: "c", files: disk)
        let claimed = random.chance(950) ? file.count : Int(clamping: random.number())
        let receiver = try CheckpointReceiver(
            store: store, step: random.pick([3, 40]), byteCount: claimed)
        var fed = 0
        while fed < most, receiver.received < file.count {
            let count = min(1 + random.below(400), file.count - receiver.received)
            let piece = Array(file[receiver.received..<receiver.received + count])
            let isOdd = random.chance(30)
            let offset = isOdd ? Int(clamping: random.number()) : receiver.received
            log.feed(piece)
            fed += 1
            let digest = random.chance(20) ? 7 : piece.withUnsafeBytes { XXH64.digest($0) }
            do {
                let before = receiver.received
                try piece.withUnsafeBytes { try receiver.append($0, at: offset, digest: digest) }
                if receiver.received == before && !isOdd { break }
            } catch {
                guard (error as? StorageError)?.code == .invalidValue else { return fed }
            }
        }
        if receiver.received == claimed, let stored = try? receiver.finish() {
            let reader = try CheckpointReader(path: store.path(step: stored.step), files: disk)
            guard reader.digests == stored.digests else {
                throw FuzzFailure("a checkpoint was stored that is damaged")
            }
        }
        receiver.abandon()
        return max(1, fed)
    }
}

/// params.json, --set and settings.json.
struct SettingsTarget: FuzzTarget {
    static let name = "settings"
    static let share = 100
    static let episodeFrames = 50

    private let valid: [[UInt8]]

    init() throws {
        let params = #"""
            {"network": {"backbone": "basic", "channels": 8}, "loss": {"margin": 0.5},
             "evaluation": {"sets": ["train_eval", "val_eval"]}, "data": {"root": "/d\u00e9"},
             "checkpoint": {"keep_last": 2, "keep_best": 1}, "seed": 9223372036854775807}
            """#
        let record = try SettingsRecord(
            settings: Settings.resolve(paramsJSON: Data(params.utf8)),
            paramsJSON: Data(params.utf8))
        valid = [Array(params.utf8), Array(record.text.utf8)]
    }

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        for _ in 0..<frames {
            let text = Mutator.mutate(random.pick(valid), .text, others: valid, using: &random)
            log.feed(text)
            if let settings = try? Settings.resolve(paramsJSON: Data(text)) {
                let again = try Settings.resolve(paramsJSON: Data(settings.canonicalJSON.utf8))
                guard again == settings else { throw FuzzFailure("settings do not read back") }
            }
            _ = try? SettingsRecord(parsing: Data(text), name: "settings.json")
            let word = String(decoding: text.prefix(60), as: UTF8.self)
            _ = try? Settings.resolve(paramsJSON: nil, overrides: ["checkpoint.keep_last=\(word)"])
        }
    }
}

/// Annotations of video frames.
struct AnnotationTarget: FuzzTarget {
    static let name = "annotation"
    static let share = 200
    static let episodeFrames = 50

    private static let valid = Array(
        """
        <?xml version="1.0"?><annotation><folder>a</folder><filename>000001</filename>
        <size><width>64</width><height>48</height></size><!-- c -->
        <object><trackid>0</trackid><name>n01 &amp; <![CDATA[x]]></name>
        <bndbox><xmax>20</xmax><xmin>3</xmin><ymax>30</ymax><ymin>4</ymin></bndbox>
        <occluded>0</occluded></object></annotation>
        """.utf8)

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        for _ in 0..<frames {
            let text = Mutator.mutate(Self.valid, .text, others: [Self.valid], using: &random)
            log.feed(text)
            _ = try? FrameAnnotation(parsing: text, name: "f.xml")
        }
    }
}

/// Catalogues and evaluation sets.
struct CatalogueTarget: FuzzTarget {
    static let name = "catalogue"
    static let share = 200
    static let episodeFrames = 50

    private let catalogue: Catalogue
    private let catalogueText: [UInt8]
    private let setText: [UInt8]

    init() throws {
        catalogue = try Catalogue(
            root: "/d",
            samples: (0..<6).map {
                Sample(
                    path: $0 == 3 ? "a,\"b\" c.jpg" : "i/\($0).jpg", identity: "\($0 / 2)",
                    split: "val", byteCount: 5, digest: 77)
            })
        catalogueText = Array(Catalogue.text(catalogue.samples))
        setText = Array(
            """
            tuple,position,role,path
            0,0,anchor,i/0.jpg
            0,1,positive,i/1.jpg
            0,2,negative,i/2.jpg
            1,0,anchor,i/4.jpg
            1,1,positive,i/5.jpg
            1,2,negative,"a,""b"" c.jpg"

            """.utf8)
    }

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        for _ in 0..<frames {
            let isSet = random.chance(500)
            let text = Mutator.mutate(
                isSet ? setText : catalogueText, .text, others: [catalogueText, setText],
                using: &random)
            log.feed(text)
            if isSet {
                _ = try? EvaluationSet(
                    parsing: text, name: "val_eval", path: "set.csv", catalogue: catalogue)
            } else if let samples = try? Catalogue.parse(text, name: "catalogue.csv") {
                _ = try? Catalogue(root: "/d", samples: samples)
            }
        }
    }
}

/// Small files that others may have written: evaluations, addresses, `dataset.json`.
struct SmallFilesTarget: FuzzTarget {
    static let name = "small-files"
    static let share = 40
    static let episodeFrames = 20

    private let folder: String

    init() throws {
        folder = NSTemporaryDirectory() + "lineup-fuzz-\(getpid())"
        try FileManager.default.createDirectory(
            atPath: folder, withIntermediateDirectories: true)
    }

    private static let valid: [(name: String, text: String)] = [
        (
            "20-val_eval.json",
            """
            {"format": 1, "step": 20, "set": "val_eval", "weights_digest": "00000000000000ff",
             "dataset_digest": "0000000000000001", "numerics_class": "cpu", "evaluator": "h:7",
             "started": 1.5, "finished": 2.5, "images": 3, "non_finite_tuples": 0,
             "metrics": {"general_accuracy": 0.5, "mean_loss": null}}
            """
        ),
        ("coordinator.json", #"{"address": "tcp://127.0.0.1:5", "host": "h", "process": 7}"#),
        (
            "dataset.json",
            #"{"version": 1, "kind": "crops", "source": "s", "counts": {"images": 3}, "sets": {},"#
                + #""catalogue_digest": "0000000000000001", "digest": "0000000000000002"}"#
        ),
    ]

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        for _ in 0..<frames {
            let (name, text) = random.pick(Self.valid)
            let changed = Mutator.mutate(
                Array(text.utf8), .text, others: Self.valid.map { Array($0.text.utf8) },
                using: &random)
            let path = folder + "/" + name
            try Data(changed).write(to: URL(fileURLWithPath: path))
            log.feed(changed)
            switch name {
            case "coordinator.json": _ = CoordinatorAddress(file: path)
            case "dataset.json": _ = try? DataSetManifest(loading: folder)
            default: _ = try? FolderEvaluation(path: path)
            }
        }
        try? FileManager.default.removeItem(atPath: folder + "/20-val_eval.json")
    }
}

/// Ledgers with damaged pages.
struct LedgerTarget: FuzzTarget {
    static let name = "ledger"
    static let share = 1
    static let episodeFrames = 5

    private let folder: String
    private let valid: [UInt8]

    init() throws {
        folder = NSTemporaryDirectory() + "lineup-fuzz-ledger-\(getpid())"
        try? FileManager.default.removeItem(atPath: folder)
        try FileManager.default.createDirectory(
            atPath: folder, withIntermediateDirectories: true)
        let ledger = try Ledger(path: folder + "/valid.sqlite")
        try ledger.createRun(
            RunRecord(
                run: "r", created: 1, settings: "{}", settingsDigest: 1, datasetDigest: 2))
        try ledger.beginTerm()
        for step in 1...20 {
            try ledger.commitStep(
                StepRecord(
                    step: step, loss: 1, fractionPositive: 0.5, activeCount: 3,
                    learningRate: 0.1, samples: 4, digest: UInt64(step),
                    seconds: StepSeconds(compute: 1, exchange: 1, commit: 1, total: 3)),
                miniBatches: [
                    MiniBatchRecord(step: step, slot: 0, worker: "t0", seconds: 1)
                ])
        }
        try ledger.insertCheckpoint(
            CheckpointRecord(
                step: 10, file: "f", bytes: 3, digest: 4, stateDigest: 5, written: 6))
        try ledger.close()
        valid = Array(try Data(contentsOf: URL(fileURLWithPath: folder + "/valid.sqlite")))
    }

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        let path = folder + "/ledger.sqlite"
        for _ in 0..<frames {
            let file = Mutator.mutate(
                valid, random.chance(500) ? .bytes : .text, others: [], using: &random)
            log.feed(file)
            for name in ["", "-wal", "-shm"] {
                try? FileManager.default.removeItem(atPath: path + name)
            }
            try Data(file).write(to: URL(fileURLWithPath: path))
            guard let reader = try? LedgerReader(path: path) else { continue }
            _ = try? reader.snapshot()
            _ = try? reader.resultDigest()
            _ = try? reader.history(afterStep: 3)
            try? reader.close()
        }
    }
}
