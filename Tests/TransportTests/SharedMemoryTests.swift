import Foundation
import Testing
import Transport

@Suite struct SharedMemoryTests {
    private func bytes(
        _ peer: PeerMemory, _ name: SharedMemory.Name, offset: UInt64 = 0, count: Int
    ) -> [UInt8]? {
        peer.bytes(
            descriptor: name.descriptor, nonce: name.nonce, offset: offset, count: count
        ).map { [UInt8]($0) }
    }

    @Test func anotherReaderSeesWhatIsWritten() throws {
        let memory = try #require(SharedMemory(byteCount: 5_000))
        let peer = try #require(PeerMemory(memory.name))
        #expect(bytes(peer, memory.name, count: 2) == [0, 0])
        memory.base.storeBytes(of: 0x0605, toByteOffset: 4_998, as: UInt16.self)
        memory.base.storeBytes(of: 9, as: UInt8.self)
        #expect(bytes(peer, memory.name, offset: 4_998, count: 2) == [5, 6])
        #expect(bytes(peer, memory.name, count: 1) == [9])
        // To the end of its last page, and no further.
        #expect(bytes(peer, memory.name, offset: 8_191, count: 1) == [0])
        #expect(bytes(peer, memory.name, offset: 8_191, count: 2) == nil)
        #expect(bytes(peer, memory.name, offset: .max, count: 1) == nil)
        #expect(bytes(peer, memory.name, offset: 0, count: -1) == nil)
        withExtendedLifetime(memory) {}
    }

    @Test func nothingElseIsRead() throws {
        let memory = try #require(SharedMemory(byteCount: 1))
        let name = memory.name
        let file = FileManager.default.temporaryDirectory.appending(
            path: "lineup-\(UUID().uuidString)")
        try Data(count: 8_192).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        let handle = try FileHandle(forReadingFrom: file)
        for (process, descriptor, nonce) in [
            (name.process, name.descriptor, name.nonce ^ 1), (name.process, Int32(-1), name.nonce),
            (name.process, handle.fileDescriptor, 0), (Int32(1), name.descriptor, name.nonce),
            (Int32.max, name.descriptor, name.nonce),
        ] {
            #expect(
                PeerMemory(.init(process: process, descriptor: descriptor, nonce: nonce)) == nil)
        }
        withExtendedLifetime(memory) {}
    }

    @Test func whatTakesThePlaceOfOldMemoryIsFound() throws {
        let probe = try #require(SharedMemory(byteCount: 1))
        let peer = try #require(PeerMemory(probe.name))
        var names: [SharedMemory.Name] = []
        for round in 0..<3 {
            // The system gives the lowest free descriptor: mostly the one before.
            let memory = try #require(SharedMemory(byteCount: 1))
            withExtendedLifetime(memory) {
                memory.base.storeBytes(of: UInt8(round), as: UInt8.self)
                #expect(bytes(peer, memory.name, count: 1) == [UInt8(round)])
                for old in names where old.descriptor == memory.name.descriptor {
                    #expect(bytes(peer, old, count: 1) == nil)
                }
            }
            names.append(memory.name)
        }
    }

    @Test func addressesTellOfMemoryToNeighboursAlone() throws {
        let memory = try #require(SharedMemory(byteCount: 1))
        let router = try Socket(Context(), .router, frameBytesMax: 1 << 20)
        let told = try #require(
            Address.adding(
                memory.name, to: try router.bindForData("tcp://127.0.0.1:*", host: "head")))
        #expect(Address.adding(memory.name, to: "tcp://head:5600") == nil)
        #expect(Address.memory(in: told) == memory.name)
        #expect(Address.choose(told).hasPrefix("ipc://"))
        // No Unix socket of that name here: the process is elsewhere.
        let parts = told.split(separator: " ")
        #expect(Address.memory(in: "\(parts[0]) ipc://@lineup-none \(parts[2])") == nil)
        #expect(Address.memory(in: "\(parts[0]) \(parts[2])") == nil)
        #expect(Address.memory(in: "\(parts[0]) \(parts[1])") == nil)
        for wrong in ["memory=", "memory=1/2", "memory=1/2/xyz", "memory=a/2/00000000000000ff"] {
            #expect(Address.memory(in: "\(parts[0]) \(parts[1]) \(wrong)") == nil)
        }
    }
}
