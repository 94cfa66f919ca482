import Basics
import Foundation
import Storage
import Testing

@Suite struct EventWriterTests {
    private static func events(_ folder: TemporaryFolder) throws -> [[TensorBoardEvent]] {
        try folder.names().map { name in
            let bytes = Array(try #require(FileManager.default.contents(atPath: folder(name))))
            return RecordFrame.decode(bytes).compactMap { TensorBoardEvent(decoding: $0) }
        }
    }

    /// What a reader shows: TensorBoard drops what it has from the step of a start on.
    private static func shown(_ folder: TemporaryFolder) throws -> [Int: Float] {
        var values: [Int: Float] = [:]
        for event in try events(folder).joined() {
            switch event.content {
            case .scalars(let scalars):
                for scalar in scalars {
                    #expect(values[event.step] == nil, "step \(event.step) is there twice")
                    values[event.step] = scalar.value
                }
            case .start: values = values.filter { $0.key < event.step }
            case .version, .histograms, .other: break
            }
        }
        return values
    }

    private static func add(_ writer: EventWriter, _ steps: some Sequence<Int>) throws {
        for step in steps { try writer.add(step: step, time: 1, [("loss", Double(step) / 4)]) }
    }

    @Test func recordsHaveTheBytesOfTensorBoardsOwnWriter() throws {
        let golden = Array(
            try #require(FileManager.default.contents(atPath: fixture("events.golden"))))
        let events = [
            TensorBoardEvent(time: 1_700_000_000.5, step: 0, content: .version("brain.Event:2")),
            TensorBoardEvent(
                time: 1_700_000_001.25, step: 1,
                content: .scalars([
                    .init(tag: "loss", value: 0.75), .init(tag: "learning_rate", value: 0.001),
                ])),
            TensorBoardEvent(time: 1_700_000_002, step: 300, content: .start),
            TensorBoardEvent(
                time: 1_700_000_002, step: 12_345_678_901,
                content: .scalars([.init(tag: "loss", value: .infinity)])),
        ]
        #expect(events.flatMap { RecordFrame.encode($0.encoded) } == golden)
        #expect(
            RecordFrame.decode(golden).compactMap { TensorBoardEvent(decoding: $0) } == events)
    }

    @Test func distributionsHaveTheBytesOfTensorBoardsOwnWriter() throws {
        var values = Histogram()
        for value in [0, -2.5, 1e-13, 0.25, 0.25, 3, 3.1, 1e21, 7e-4] { values.add(value) }
        let event = TensorBoardEvent(
            time: 1_700_000_003, step: 20,
            content: .histograms([.init(tag: "embedding_dists", values: values)]))
        let golden = Array(
            try #require(FileManager.default.contents(atPath: fixture("histogram.golden"))))
        #expect(RecordFrame.encode(event.encoded) == golden)
    }

    @Test func aResumedRunWritesEachStepOnce() throws {
        let folder = try TemporaryFolder()
        for _ in 0..<3 {
            let writer = try EventWriter(directory: folder.path, lastStep: 40)
            try Self.add(writer, [10, 20, 30, 40])
            try writer.close()
        }
        #expect(try Self.shown(folder) == [10: 2.5, 20: 5, 30: 7.5, 40: 10])
        #expect(try Self.events(folder).count == 1)
        let writer = try EventWriter(directory: folder.path, lastStep: 40)
        try Self.add(writer, [40, 50])
        try writer.close()
        #expect(try Self.events(folder).map(\.count) == [5, 2])
    }

    @Test func whatTheRunWentBackBehindIsDropped() throws {
        let folder = try TemporaryFolder()
        do {
            let writer = try EventWriter(directory: folder.path)
            try Self.add(writer, [10, 20, 30, 40])
        }
        let writer = try EventWriter(directory: folder.path, lastStep: 20)
        #expect(try Self.shown(folder) == [10: 2.5, 20: 5])
        #expect(writer.contains(tag: "loss", step: 20))
        #expect(!writer.contains(tag: "loss", step: 30))
        try writer.add(step: 30, time: 2, [("loss", 1)])
        try writer.flush()
        #expect(try Self.shown(folder) == [10: 2.5, 20: 5, 30: 1])
    }

    @Test func lateValuesArePutInOrder() throws {
        let folder = try TemporaryFolder()
        let writer = try EventWriter(directory: folder.path)
        try Self.add(writer, [10, 40, 30, 20, 50])
        try writer.flush()
        #expect(try Self.shown(folder) == [10: 2.5, 20: 5, 30: 7.5, 40: 10, 50: 12.5])
        // Between starts the steps never fall: some readers take a fall for a start.
        var last = -1
        for event in try Self.events(folder).joined() {
            if case .start = event.content { last = -1 }
            if case .scalars = event.content {
                #expect(event.step > last)
                last = event.step
            }
        }
    }

    @Test func tornAndForeignFilesAreReadAsFarAsTheyGo() throws {
        let folder = try TemporaryFolder()
        do {
            let writer = try EventWriter(directory: folder.path)
            try Self.add(writer, [10, 20, 30])
        }
        let name = try #require(folder.names().first)
        let bytes = Array(try #require(FileManager.default.contents(atPath: folder(name))))
        for count in 0..<bytes.count {
            #expect(RecordFrame.decode(Array(bytes[..<count])).count < 4)
        }
        try Data(bytes.dropLast(5)).write(to: URL(fileURLWithPath: folder(name)))
        try Data("not an event".utf8)
            .write(to: URL(fileURLWithPath: folder("events.out.tfevents.9.x")))
        let writer = try EventWriter(directory: folder.path)
        try Self.add(writer, [10, 20, 30])
        try writer.close()
        #expect(try Self.shown(folder) == [10: 2.5, 20: 5, 30: 7.5])
        let names = try folder.names().filter { $0 != "events.out.tfevents.9.x" }
        #expect(names.count == 2 && names[0] == name, "a new file sorts behind the old ones")
    }

    @Test func damagedProtobufIsNoEvent() throws {
        let event = TensorBoardEvent(
            time: 1, step: 1 << 40, content: .scalars([.init(tag: "loss", value: 0.5)]))
        let bytes = event.encoded
        #expect(TensorBoardEvent(decoding: bytes[...]) == event)
        for count in 0..<bytes.count { _ = TensorBoardEvent(decoding: bytes[..<count]) }
        for at in bytes.indices {
            for value in [UInt8(0), 0x7F, 0xFF] {
                var damaged = bytes
                damaged[at] = value
                _ = TensorBoardEvent(decoding: damaged[...])
            }
        }
        #expect(TensorBoardEvent(decoding: Array(repeating: 0xFF, count: 30)[...]) == nil)
    }
}
