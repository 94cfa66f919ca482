internal import Basics
internal import Datasets
internal import Foundation
internal import Images
internal import Protocol
internal import Training

/// Decodes the images of slots before they are needed.
///
/// What a slot's images become is a pure function of (seed, step, slot, image): which thread decodes
/// them, and when, changes nothing.
///
/// - Note: @unchecked: everything that changes is touched only under `condition`.
final class SlotInputs: @unchecked Sendable {
    /// Which slot of which step.
    struct Key: Hashable, Comparable {
        let step: Int
        let slot: Int

        static func < (left: Key, right: Key) -> Bool {
            (left.step, left.slot) < (right.step, right.slot)
        }
    }

    private struct Entry {
        let indices: [Int]
        let pixels: FloatBuffer
        /// Next image that no thread has taken.
        var next = 0
        var done = 0
        var failure: ImageError?
    }

    private let loader: ImageLoader
    private let samples: [Sample]
    private let seed: UInt64
    private let condition = NSCondition()
    private var entries: [Key: Entry] = [:]
    private var spare: [FloatBuffer] = []
    private var isStopping = false
    /// Decoded images by row of the catalogue, kept where nothing random happens to them.
    private var cache: [Int: FloatBuffer] = [:]
    private var cacheBytesLeft: Int

    /// Most bytes of decoded images that are kept.
    static let cacheBytesMax = 512 << 20

    /// Starts the decoding threads.
    init(catalogue: Catalogue, input: InputConfiguration, seed: UInt64, threads: Int) throws {
        loader = try ImageLoader(root: catalogue.root, input: input)
        samples = catalogue.samples
        self.seed = seed
        cacheBytesLeft = input.isFixed ? Self.cacheBytesMax : 0
        for _ in 0..<max(1, threads) {
            let thread = Thread { [self] in work() }
            thread.stackSize = 1 << 20
            thread.start()
        }
    }

    /// Asks for a slot's images; asking twice does nothing.
    func request(_ key: Key, indices: [Int]) {
        condition.withLock {
            guard entries[key] == nil else { return }
            let count = indices.count * loader.input.elementCount
            let pixels =
                spare.last?.count == count ? spare.removeLast() : FloatBuffer(count: count)
            entries[key] = Entry(indices: indices, pixels: pixels)
            condition.broadcast()
        }
    }

    /// Waits for a slot's images, `[image, 3, height, width]`.
    ///
    /// - Throws: the first image that could not be used.
    func take(_ key: Key) throws -> FloatBuffer {
        try condition.withLock {
            while true {
                guard let entry = entries[key] else {
                    throw TrainerError(.failed, "slot \(key.slot) of step \(key.step) was dropped")
                }
                if let failure = entry.failure {
                    entries[key] = nil
                    throw failure
                }
                if entry.done == entry.indices.count {
                    entries[key] = nil
                    return entry.pixels
                }
                condition.wait()
            }
        }
    }

    /// Gives a buffer back for a later slot.
    func recycle(_ pixels: FloatBuffer) {
        condition.withLock { if spare.count < 16 { spare.append(pixels) } }
    }

    /// Forgets what was asked for steps before `step`.
    func drop(before step: Int) {
        condition.withLock {
            // An entry that a thread still writes keeps its buffer alive until that thread is done.
            for key in entries.keys where key.step < step { entries[key] = nil }
            condition.broadcast()
        }
    }

    /// Ends the threads.
    func stop() {
        condition.withLock {
            isStopping = true
            condition.broadcast()
        }
    }

    private func work() {
        while let (key, place, index, pixels) = next() {
            var failure: ImageError?
            let sample = samples[index]
            let size = loader.input.elementCount
            let target = UnsafeMutableBufferPointer(
                rebasing: pixels.floats[place * size..<(place + 1) * size])
            if let kept = condition.withLock({ cache[index] }) {
                _ = target.update(from: kept.floats)
            } else {
                do throws(ImageError) {
                    try loader.load(
                        sample.path, expecting: sample.fingerprint,
                        augmentation: CounterRandom(
                            seed: seed, step: UInt64(key.step), slot: UInt64(key.slot),
                            item: UInt64(place), purpose: .augmentation),
                        step: key.step, into: target)
                    keep(index, UnsafeBufferPointer(target))
                } catch {
                    failure = error
                }
            }
            condition.withLock {
                guard entries[key]?.pixels === pixels else { return }
                entries[key]!.done += 1
                if entries[key]!.failure == nil { entries[key]!.failure = failure }
                condition.broadcast()
            }
        }
    }

    private func keep(_ index: Int, _ pixels: UnsafeBufferPointer<Float>) {
        let bytes = pixels.count * 4
        let isRoom = condition.withLock {
            guard cacheBytesLeft >= bytes, cache[index] == nil else { return false }
            cacheBytesLeft -= bytes
            return true
        }
        guard isRoom else { return }
        let copy = FloatBuffer(count: pixels.count)
        _ = copy.floats.update(from: pixels)
        condition.withLock { cache[index] = copy }
    }

    /// The next image of the slot that is needed first.
    private func next() -> (Key, Int, Int, FloatBuffer)? {
        condition.withLock {
            while !isStopping {
                let open = entries.filter { $0.value.next < $0.value.indices.count }.keys.min()
                if let key = open {
                    let place = entries[key]!.next
                    entries[key]!.next += 1
                    let entry = entries[key]!
                    return (key, place, entry.indices[place], entry.pixels)
                }
                condition.wait()
            }
            return nil
        }
    }
}
