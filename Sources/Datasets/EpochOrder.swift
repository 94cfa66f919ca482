import Basics
import Synchronization

/// Which of a number of things each slot takes, a pure function of (seed, step, slot).
///
/// An epoch is a random order of all things, new for every epoch. A step takes the next
/// `perSlot` * G of them, so that the G slots of a step share none; what is left at an epoch's end,
/// fewer than a step needs, is left out. With fewer things than that an epoch is cut slot by slot
/// instead, and slots of one step may share things.
struct EpochOrder: Sendable {
    /// Things there are.
    let count: Int
    /// Things of a slot, at most ``count``.
    let perSlot: Int
    /// Seed of the orders.
    let seed: UInt64
    /// What is ordered.
    let purpose: RandomPurpose

    private let memory = Memory()

    init(count: Int, perSlot: Int, seed: UInt64, purpose: RandomPurpose) {
        self.count = count
        self.perSlot = perSlot
        self.seed = seed
        self.purpose = purpose
    }

    /// Steps that show everything at most once.
    func stepsPerEpoch(slotsPerStep: Int) -> Int { max(count / (perSlot * slotsPerStep), 1) }

    /// The things of a slot.
    ///
    /// - Parameters:
    ///   - step: from 0.
    ///   - slot: 0..<slotsPerStep.
    func slot(step: Int, slot: Int, slotsPerStep: Int) -> [Int] {
        precondition(
            step >= 0 && slotsPerStep >= 1 && (0..<slotsPerStep).contains(slot),
            "slot \(slot) of \(slotsPerStep) at step \(step) does not exist")
        let group = perSlot * slotsPerStep
        let epoch: Int
        let first: Int
        if count >= group {
            let steps = count / group
            epoch = step / steps
            first = step % steps * group + slot * perSlot
        } else {
            let slots = count / perSlot
            let number = step * slotsPerStep + slot
            epoch = number / slots
            first = number % slots * perSlot
        }
        return memory.order(epoch: epoch, of: self)[first..<first + perSlot].map { Int($0) }
    }

    /// Remembers the orders of two epochs, which are functions of (seed, epoch) alone.
    private final class Memory: Sendable {
        private let orders = Mutex<[(epoch: Int, order: [Int32])]>([])

        func order(epoch: Int, of things: EpochOrder) -> [Int32] {
            orders.withLock { orders in
                if let known = orders.first(where: { $0.epoch == epoch }) { return known.order }
                var order = (0..<Int32(things.count)).map { $0 }
                var random = CounterRandom(
                    seed: things.seed, step: UInt64(epoch), purpose: things.purpose)
                random.shuffle(&order)
                if orders.count == 2 { orders.removeFirst() }
                orders.append((epoch, order))
                return order
            }
        }
    }
}
