public import Foundation

/// What `logging.detailed` keeps of a committed step until it is in a file.
public struct DetailedRecord: Sendable {
    /// The step.
    public var step: Int
    /// The file of each row's image.
    public var names: [String]
    /// Row-major `[names.count, dimension]`, as the network gave them.
    public var embeddings: [Float]
    /// What each row adds to the loss, `[names.count]`; NaN for one without a term.
    public var losses: [Float]

    /// Names every part.
    public init(step: Int, names: [String], embeddings: [Float], losses: [Float]) {
        self.step = step
        self.names = names
        self.embeddings = embeddings
        self.losses = losses
    }

    /// Why a ledger cannot hold it; nil where it can.
    var objection: String? {
        guard !names.isEmpty, losses.count == names.count,
            !embeddings.isEmpty, embeddings.count.isMultiple(of: names.count)
        else {
            return
                "\(names.count) names, \(losses.count) losses and \(embeddings.count) numbers of "
                + "embeddings"
        }
        return nil
    }
}

extension Array<Float> {
    /// The numbers as bytes, little end first.
    public var littleEndianBytes: Data {
        var bits = map(\.bitPattern.littleEndian)
        return bits.withUnsafeMutableBytes { Data($0) }
    }

    /// Reads what ``littleEndianBytes`` gives; bytes beyond whole numbers are left out.
    public init(littleEndianBytes data: Data) {
        self = [Float](unsafeUninitializedCapacity: data.count / 4) { buffer, count in
            count = data.copyBytes(to: UnsafeMutableRawBufferPointer(buffer)) / 4
            for place in 0..<count {
                buffer[place] = Float(
                    bitPattern: UInt32(littleEndian: buffer[place].bitPattern))
            }
        }
    }
}
