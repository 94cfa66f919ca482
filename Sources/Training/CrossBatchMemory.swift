import Basics
import MetricLearning
import Networks
import Tensors

/// The sizes of a queue of embeddings, and of what a step puts into it.
///
/// A step's entries are rows of an embedding and, behind it, one more than the image's identity, all of
/// them 32-bit floats; a row whose last number is 0 holds no image. Each slot has the same number of
/// rows, in slot order. A slot writes its own and leaves zeros elsewhere, so that the sum over slots
/// holds all of them, exactly.
public struct MemoryShape: Hashable, Sendable {
    /// Embeddings in the queue.
    public let size: Int
    /// Numbers of an embedding.
    public let dimension: Int
    /// G, slots of a step.
    public let slots: Int
    /// Rows of a slot: most images that one has.
    public let slotRows: Int

    /// The largest identity that a 32-bit float tells from the next.
    static let identityMax = (1 << 24) - 2

    /// Names the sizes.
    public init(size: Int, dimension: Int, slots: Int, slotRows: Int) {
        self.size = size
        self.dimension = dimension
        self.slots = slots
        self.slotRows = slotRows
    }

    /// Numbers of a row of entries.
    var rowCount: Int { dimension + 1 }

    /// Numbers of a step's entries.
    public var entryCount: Int { slots * slotRows * rowCount }

    /// Floats of the queue in a state.
    public var stateCount: Int { size * rowCount + 1 }

    /// Writes a slot's rows; those of other slots stay as they are.
    ///
    /// - Parameters:
    ///   - embeddings: row-major `[labels.count, dimension]`.
    ///   - labels: one identity for each row.
    ///   - entries: ``entryCount`` numbers.
    public func write(
        _ embeddings: [Float], labels: [Int], slot: Int,
        into entries: UnsafeMutableBufferPointer<Float>
    ) {
        precondition(
            labels.count <= slotRows && embeddings.count == labels.count * dimension
                && slot < slots && entries.count == entryCount,
            "\(labels.count) images of slot \(slot) with \(embeddings.count) numbers; \(self)")
        for (place, label) in labels.enumerated() {
            precondition(0 <= label && label <= Self.identityMax, "identity \(label)")
            let start = (slot * slotRows + place) * rowCount
            for at in 0..<dimension {
                // Not -0, which a sum with 0 would turn into 0.
                entries[start + at] = embeddings[place * dimension + at] + 0
            }
            entries[start + dimension] = Float(label + 1)
        }
    }

    /// Checks a step's entries before they are used.
    func check(_ entries: [Float], step: Int) throws(TrainingError) {
        guard entries.count == entryCount else {
            throw TrainingError(
                .shapeMismatch,
                "the effect of step \(step) has \(entries.count) numbers for the memory; loss.memory "
                    + "needs \(entryCount)")
        }
        for place in stride(from: dimension, to: entries.count, by: rowCount)
        where Self.identity(entries[place]) == nil {
            throw TrainingError(
                .invalidValue,
                "the effect of step \(step) has \(entries[place]) as an identity; expected a whole "
                    + "number")
        }
    }

    /// One more than an identity, or 0 for none; nil for a number that is neither.
    static func identity(_ value: Float) -> Int? {
        Int(exactly: value).flatMap { (0...identityMax + 1).contains($0) ? $0 : nil }
    }
}

extension TrainingConfiguration {
    /// The queue that losses compare with; nil without one.
    public var memory: MemoryShape? {
        loss.memory == 0
            ? nil
            : MemoryShape(
                size: loss.memory, dimension: network.embeddingDimension, slots: slotsPerStep,
                slotRows: imagesPerSlot)
    }

    /// Checks that identities and images fit into the memory.
    func checkMemory() throws(TrainingError) {
        guard let memory else { return }
        guard classCount <= MemoryShape.identityMax + 1 else {
            throw TrainingError(
                .invalidValue,
                "loss.memory is \(memory.size), but the data has \(classCount) identities, of which a "
                    + "memory tells \(MemoryShape.identityMax + 1) apart; set loss.memory=0")
        }
        guard memory.slotRows > 0, memory.slots * memory.slotRows <= memory.size else {
            throw TrainingError(
                .invalidValue,
                "loss.memory is \(memory.size), but a step has \(memory.slots) slots of "
                    + "\(memory.slotRows) images; set it to at least their product")
        }
    }
}

/// The queue of embeddings of earlier steps: a part of the training state.
///
/// A ring: rows are written in slot order, each over the oldest. Embeddings are those of the training
/// forward pass, as the network gave them.
struct CrossBatchMemory: Sendable {
    let shape: MemoryShape
    /// `[size, dimension]`.
    private let embeddings: NamedTensor
    /// `[size]`, one more than the identity; 0 where nothing was written yet.
    private let identities: NamedTensor
    /// `[1]`, where the next row is written.
    private let next: NamedTensor

    /// What checkpoints call the tensors, and their sizes.
    static func specs(_ shape: MemoryShape) -> [(name: String, shape: [Int])] {
        [
            ("memory/embeddings", [shape.size, shape.dimension]),
            ("memory/identities", [shape.size]), ("memory/next", [1]),
        ]
    }

    /// Lies over tensors of these specs.
    init(_ shape: MemoryShape, _ tensors: ArraySlice<NamedTensor>) {
        self.shape = shape
        let tensors = Array(tensors)
        (embeddings, identities, next) = (tensors[0], tensors[1], tensors[2])
    }

    /// Identities of all rows that are written, from the first place on.
    private var labels: [Int] {
        identities.withUnsafeBytes { bytes in
            bytes.bindMemory(to: Float.self).prefix { $0 > 0 }.map { Int($0) - 1 }
        }
    }

    /// The rows that are written, in the order of their places; nil for none.
    ///
    /// They lie in the state's memory and are valid until the state moves on.
    func references() throws -> References? {
        let labels = labels
        guard !labels.isEmpty else { return nil }
        return try References(
            embeddings: embeddings.view().narrow(0, start: 0, length: labels.count),
            labels: labels)
    }

    /// Checks what was loaded.
    func check() throws(TrainingError) {
        let places = identities.floats() + next.floats()
        guard places.allSatisfy({ MemoryShape.identity($0) != nil }),
            places[shape.size] < Float(shape.size)
        else {
            throw TrainingError(
                .invalidValue,
                "tensors 'memory/identities' and 'memory/next' hold other numbers than identities and "
                    + "a place below \(shape.size); take another checkpoint")
        }
    }

    /// Puts a step's rows in, each over the oldest.
    ///
    /// - Parameter entries: checked ones, see ``MemoryShape``.
    func enqueue(_ entries: [Float]) {
        let dimension = shape.dimension
        embeddings.withUnsafeMutableBytes { embeddings in
            identities.withUnsafeMutableBytes { identities in
                next.withUnsafeMutableBytes { next in
                    let rows = embeddings.bindMemory(to: Float.self)
                    let labels = identities.bindMemory(to: Float.self)
                    let cursor = next.bindMemory(to: Float.self)
                    var place = Int(cursor[0])
                    for start in stride(from: 0, to: entries.count, by: shape.rowCount)
                    where entries[start + dimension] > 0 {
                        for at in 0..<dimension {
                            rows[place * dimension + at] = entries[start + at]
                        }
                        labels[place] = entries[start + dimension]
                        place = (place + 1) % shape.size
                    }
                    cursor[0] = Float(place)
                }
            }
        }
    }
}
