import Foundation
import Synchronization
import Tensors
import Testing

@Suite struct MemoryTests {
    init() throws { try EngineFixture.open() }

    /// Sixteen floats that count their owner's end.
    final class Buffer: Sendable {
        nonisolated(unsafe) let memory: UnsafeMutablePointer<Float>
        let freed: Counter

        init(_ freed: Counter) {
            memory = .allocate(capacity: 16)
            for place in 0..<16 { (memory + place).initialize(to: Float(place)) }
            self.freed = freed
        }

        deinit {
            memory.deallocate()
            freed.increment()
        }
    }

    final class Counter: Sendable {
        private let count = Mutex(0)
        func increment() { count.withLock { $0 += 1 } }
        var value: Int { count.withLock { $0 } }
    }

    @Test(arguments: [[4, 3, 7, 7], [3, 130, 3, 3], [5, 2, 3, 3], [6, 8, 1, 1], [2, 1, 3, 3]])
    func relayoutCopiesWhatCopyCopies(shape: [Int]) throws {
        let count = shape.reduce(1, *)
        let values = (0..<count).map { Float($0) * 0.5 }
        let plain = try values.withUnsafeBytes { bytes in
            try Tensor(copying: bytes, shape: shape, dtype: .float32)
        }
        let last = try plain.contiguous(.channelsLast)
        let rowMajor = try Tensor.zeros(shape)
        try rowMajor.relayout_(from: last)
        #expect(try rowMajor.floats() == values)
        let back = try Tensor.zeros(shape).contiguous(.channelsLast)
        try back.relayout_(from: plain)
        #expect(back.isChannelsLast)
        #expect(try back.floats() == values)
    }

    @Test func viewSharesMemoryBothWays() throws {
        let buffer = Buffer(Counter())
        let view = try Tensor(
            viewing: buffer.memory, shape: [4, 4], dtype: .float32, keepingAlive: buffer)
        #expect(view.dataAddress == UInt(bitPattern: buffer.memory))
        #expect(try view.select(0, 1).floats() == [4, 5, 6, 7])
        buffer.memory[5] = 99
        #expect(try view.select(0, 1).floats() == [4, 99, 6, 7])
        try view.mul_(2)
        #expect(buffer.memory[5] == 198)
    }

    @Test func viewKeepsItsOwnerAliveAndReleasesItOnce() throws {
        let freed = Counter()
        var derived: Tensor? = try {
            let buffer = Buffer(freed)
            let view = try Tensor(
                viewing: buffer.memory, shape: [16], dtype: .float32, keepingAlive: buffer)
            return try view.narrow(0, start: 8, length: 8)
        }()
        // Neither the buffer nor the first view has a reference in Swift any more.
        #expect(freed.value == 0)
        #expect(try derived?.floats() == [8, 9, 10, 11, 12, 13, 14, 15])
        derived = nil
        #expect(freed.value == 1)
    }

    @Test func viewHeldByAGraphKeepsItsOwnerAlive() throws {
        let freed = Counter()
        var loss: Tensor?
        let weight = try Tensor.ones([16]).requiresGradient()
        try {
            let buffer = Buffer(freed)
            let view = try Tensor(
                viewing: buffer.memory, shape: [16], dtype: .float32, keepingAlive: buffer)
            loss = try (view * weight).sum()
        }()
        #expect(freed.value == 0)
        #expect(
            try gradients(of: loss!, withRespectTo: [weight])[0].floats()
                == (0..<16).map(Float.init))
        loss = nil
        #expect(freed.value == 1)
    }

    @Test func ownerIsReleasedWhenTheViewIsRefused() throws {
        let freed = Counter()
        try {
            let buffer = Buffer(freed)
            let error = try tensorError {
                _ = try Tensor(
                    viewing: buffer.memory, shape: [4], strides: [-1], dtype: .float32,
                    keepingAlive: buffer)
            }
            #expect(error.message.contains("view of memory as float32[4]"))
            #expect(freed.value == 0)
        }()
        #expect(freed.value == 1)
    }

    @Test func ownerIsReleasedOnAnotherThread() throws {
        let freed = Counter()
        let buffer = Buffer(freed)
        let box = Mutex<Tensor?>(
            try Tensor(viewing: buffer.memory, shape: [16], dtype: .float32, keepingAlive: buffer))
        try onThread { box.withLock { $0 = nil } }
        #expect(freed.value == 0)
        withExtendedLifetime(buffer) {}
    }

    @Test func stridedViewReadsWhereItPoints() throws {
        let buffer = Buffer(Counter())
        let column = try Tensor(
            viewing: buffer.memory + 1, shape: [4], strides: [4], dtype: .float32,
            keepingAlive: buffer)
        #expect(try column.floats() == [1, 5, 9, 13])
        #expect(!column.isContiguous)
        let error = try tensorError { _ = try column.withUnsafeBytes { $0.count } }
        #expect(error.code == .unsuitableTensor)
        #expect(error.message.contains("float32[4]"))
    }

    @Test func unsuitableShapesAndAddressesAreRefused() throws {
        let buffer = Buffer(Counter())
        let bytes = UnsafeMutableRawPointer(buffer.memory)
        let attempts: [(String, () throws -> Tensor)] = [
            ("not aligned", { try Tensor(viewing: bytes + 1, shape: [1], dtype: .float32) }),
            ("is no shape", { try Tensor(viewing: bytes, shape: [-1], dtype: .float32) }),
            ("is no shape", { try Tensor(viewing: bytes, shape: [.max, 2], dtype: .float32) }),
            (
                "do not fit",
                { try Tensor(viewing: bytes, shape: [4], strides: [1, 1], dtype: .int8) }
            ),
            ("has 4 elements, not 3", { try Tensor([1.0, 2.0, 3.0], shape: [2, 2]) }),
            (
                "has 16 bytes, not 8",
                {
                    try Tensor(
                        copying: UnsafeRawBufferPointer(start: bytes, count: 8), shape: [4],
                        dtype: .float32)
                }
            ),
        ]
        for (expected, attempt) in attempts {
            let error = try tensorError { _ = try attempt() }
            #expect(error.code == .unsuitableTensor)
            #expect(error.message.contains(expected), "\(error.message)")
        }
        withExtendedLifetime(buffer) {}
    }

    @Test func valuesGoInAndComeOut() throws {
        #expect(try Tensor([1.5, 2.5]).dtype == .float32)
        #expect(try Tensor([1, 2]).dtype == .int64)
        #expect(try Tensor(copying: [1.5, 2.5] as [Double]).dtype == .float64)
        #expect(try Tensor(copying: [true, false]).values(as: Bool.self) == [true, false])
        #expect(try Tensor(copying: [7, 255] as [UInt8]).values(as: UInt8.self) == [7, 255])
        #expect(try Tensor(copying: [-7] as [Int32]).integers() == [-7])
        #expect(try Tensor(2.5).shape == [])
        #expect(try Tensor(2.5).item() == 2.5)
        #expect(try Tensor([Float](), shape: [0, 3]).floats() == [])
        let error = try tensorError { _ = try Tensor([1, 2]).values(as: Float.self) }
        #expect(error.message.contains("int64, not float32"))
        _ = try tensorError { _ = try Tensor([1, 2]).item() }
    }

    @Test func valuesKeepRowMajorOrderWhateverTheMemoryFormat() throws {
        let x = try random([2, 3, 4, 5], seed: 1)
        let last = try x.contiguous(.channelsLast)
        #expect(last.isChannelsLast && !last.isContiguous)
        #expect(last.strides == [60, 1, 15, 3])
        #expect(try last.bits() == x.bits())
        #expect(try last.contiguous().isContiguous)
        #expect(try last.clone(memoryFormat: .contiguous).bits() == x.bits())
        #expect(try x.to(memoryFormat: .channelsLast).isChannelsLast)
    }

    @Test func conversionsCopyOnlyWhereSomethingChanges() throws {
        let x = try random([3, 4], seed: 1)
        #expect(try x.to(device: .cpu, dtype: .float32) === x)
        #expect(try x.to(dtype: .bfloat16).dtype == .bfloat16)
        #expect(try x.contiguous().dataAddress == x.dataAddress)
        #expect(try x.clone().dataAddress != x.dataAddress)
    }

    @Test func bytesAreReadAndWrittenInPlace() throws {
        let x = try Tensor.zeros([4])
        try x.withUnsafeMutableBytes { bytes in
            bytes.bindMemory(to: Float.self)[2] = 5
        }
        #expect(try x.floats() == [0, 0, 5, 0])
        #expect(try x.withUnsafeBytes { $0.count } == 16)
    }

    // A size that no other test asks for, so that tests beside this one do not take the block.
    @Test func freedMemoryServesTheNextTensorOfItsSize() throws {
        let count = 45_678_901
        var tensor: Tensor? = try Tensor.empty([count], dtype: .uint8)
        let address = try #require(tensor?.dataAddress)
        #expect(address % 64 == 0)
        tensor = nil
        #expect(try Engine.keptMemory() >= UInt64(count))
        let next = try Tensor.ones([count], dtype: .uint8)
        #expect(next.dataAddress == address)
        #expect(try next.sum().item() == Double(count))
    }

    @Test(arguments: [0, 1, 63, 4096, 16_383, 16_384, 16_385, 1 << 20, (1 << 22) + 1])
    func tensorsOfEverySizeHoldWhatIsWritten(count: Int) throws {
        try Engine.releaseMemory()
        for value in [3, 7] {
            let tensors = try (0..<4).map { place in
                try Tensor.full([count], Double(value + place), dtype: .uint8)
            }
            for (place, tensor) in tensors.enumerated() {
                #expect(try tensor.sum().item() == Double((value + place) * count))
                #expect((tensor.dataAddress ?? 0) % 64 == 0)
            }
        }
    }
}
