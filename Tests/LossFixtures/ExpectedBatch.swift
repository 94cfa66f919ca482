public import Basics
import Foundation

/// A small batch with the values and gradients of losses by an independent float64 script.
///
/// `Tests/MetricLearningTests/Fixtures/expected_losses.py` writes every loss another way and asks
/// pytorch-metric-learning where it has it, `expected_class_losses.py` does so for losses with vectors
/// of identities, `expected_triplet_losses.py` for given triplets. Training's form of a loss and the evaluator's are both held against it.
public struct ExpectedBatch: Decodable, Sendable, CustomStringConvertible {
    /// One loss over the batch.
    public struct Run: Decodable, Sendable, CustomStringConvertible {
        /// The loss.
        public let loss: LossConfiguration
        /// For each row two numbers in [0, 1), where the loss draws.
        public let draws: [Double]?
        /// The loss's value.
        public let value: Double
        /// Its derivative by each number of the rows.
        public let gradient: [Double]
        /// Its derivative by each number of the identities' vectors, where it has such.
        public let classGradient: [Double]?
        /// Terms above the threshold.
        public let active: Int
        /// Terms that count.
        public let valid: Int

        enum CodingKeys: String, CodingKey {
            case draws, value, gradient, active, valid
            case classGradient = "class_gradient"
        }

        /// Reads the loss's settings and the expected numbers from one object.
        public init(from decoder: any Decoder) throws {
            loss = try LossConfiguration(from: decoder)
            let values = try decoder.container(keyedBy: CodingKeys.self)
            draws = try values.decodeIfPresent([Double].self, forKey: .draws)
            value = try values.decode(Double.self, forKey: .value)
            gradient = try values.decode([Double].self, forKey: .gradient)
            classGradient = try values.decodeIfPresent([Double].self, forKey: .classGradient)
            active = try values.decode(Int.self, forKey: .active)
            valid = try values.decode(Int.self, forKey: .valid)
        }

        /// What tells the run from the others.
        public var description: String {
            "\(loss.name.rawValue) \(loss.margin) \(loss.distance)"
        }
    }

    /// What is special about the batch.
    public let name: String
    /// One identity for each row.
    public let labels: [Int]
    /// Row-major `[labels.count, 3]`.
    public let rows: [Double]
    /// Row-major `[identities, 3]`, for losses with vectors of identities.
    public let classes: [Double]?
    /// Row-major `[references, 3]`, for rows that are compared with others than each other.
    public let references: [Double]?
    /// One identity for each of these.
    public let referenceLabels: [Int]?
    /// The losses.
    public let runs: [Run]

    enum CodingKeys: String, CodingKey {
        case name, labels, rows, classes, references, runs
        case referenceLabels = "reference_labels"
    }

    /// The batch's name.
    public var description: String { name }

    /// Batches for losses that compare rows.
    public static let ofRows = read("expected_losses.json")
    /// Batches for losses with vectors of identities.
    public static let ofClasses = read("expected_class_losses.json")
    /// Batches that are compared with rows of earlier steps.
    public static let ofMemory = read("expected_memory_losses.json")

    /// Batches of given triplets.
    public static let ofTriplets = read("expected_triplet_losses.json")

    private static func read(_ name: String) -> [ExpectedBatch] {
        let file = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../MetricLearningTests/Fixtures/\(name)")
        do {
            return try JSONDecoder().decode([ExpectedBatch].self, from: Data(contentsOf: file))
        } catch {
            preconditionFailure("\(file.path): \(error)")
        }
    }
}
