import Foundation
import Protocol
import SwiftProtobuf

/// Messages as machines of ours would send them, with numbers that are sometimes absurd.
enum Messages {
    static func text(_ random: inout FuzzRandom) -> String {
        random.pick(["t0", "t1", "e0", "", "val_eval", "checkpoints/step-000000010.safetensors"])
    }

    static func word(_ random: inout FuzzRandom) -> UInt64 {
        random.chance(700) ? UInt64(random.below(6)) : random.number()
    }

    /// Any message of the protocol.
    static func anything(_ random: inout FuzzRandom) -> WireBody {
        func small() -> UInt32 { UInt32(truncatingIfNeeded: word(&random)) }
        switch random.below(23) {
        case 0: return .hello(hello(&random))
        case 1:
            return .prepared(
                .with {
                    $0.datasetDigest = word(&random)
                    $0.blockCount = word(&random)
                    $0.numerics.description_p = text(&random)
                })
        case 2:
            return .slotDone(
                .with {
                    $0.step = word(&random)
                    $0.slot = small()
                    $0.loss = small()
                    $0.fractionPositive = Double(bitPattern: random.number())
                    $0.activeCount = word(&random)
                    $0.computeSeconds = Double(bitPattern: random.number())
                })
        case 3:
            return .ready(
                .with {
                    $0.term = word(&random)
                    $0.generation = word(&random)
                    $0.step = word(&random)
                    $0.effectDigest = word(&random)
                })
        case 4:
            return .progress(
                .with {
                    $0.step = word(&random)
                    $0.phase = text(&random)
                    $0.counter = word(&random)
                    $0.planStep = word(&random)
                    $0.slotsDone = small()
                    $0.slotsLeased = small()
                    $0.ready = random.chance(500)
                    $0.active = random.chance(500)
                    $0.load = word(&random)
                })
        case 5:
            return .stateLoaded(
                .with {
                    $0.step = word(&random)
                    $0.number = word(&random)
                })
        case 6:
            return .slotReturned(
                .with {
                    $0.step = word(&random)
                    $0.slot = small()
                    $0.reason = text(&random)
                })
        case 7:
            return .goodbye(
                .with {
                    $0.reason = text(&random)
                    $0.drain = random.chance(500)
                })
        case 8:
            return .evaluationPoll(
                .with {
                    $0.idle = random.chance(700)
                    $0.held = [
                        .with {
                            $0.step = word(&random)
                            $0.set = text(&random)
                        }
                    ]
                })
        case 9: return .evaluationRows(rows(&random))
        case 10:
            return .checkpointFailed(
                .with {
                    $0.step = word(&random)
                    $0.reason = text(&random)
                })
        case 11:
            return .stateAwaited(
                .with {
                    $0.number = word(&random)
                    $0.failure = random.chance(300) ? text(&random) : ""
                })
        case 12:
            return .welcome(
                .with {
                    $0.term = word(&random)
                    $0.settings = "{}"
                    $0.datasetDigest = word(&random)
                })
        case 13: return .refusal(.with { $0.message = text(&random) })
        case 14:
            return .loadState(
                .with {
                    $0.source = random.pick([.initial, .checkpoint, .peer, .unspecified])
                    $0.step = word(&random)
                    $0.history = word(&random)
                    $0.number = word(&random)
                })
        case 15: return .plan(plan(&random))
        case 16:
            return .commit(
                .with {
                    $0.term = word(&random)
                    $0.step = word(&random)
                    $0.digest = word(&random)
                })
        case 17:
            return .evaluationGrant(
                .with {
                    $0.granted = random.chance(700)
                    $0.step = word(&random)
                    $0.sets = ["train_eval", text(&random)]
                    $0.digest = word(&random)
                })
        case 18:
            return .stop(
                .with {
                    $0.reason = random.pick([.finished, .drained, .failed, .expelled])
                    $0.message = text(&random)
                })
        case 19:
            return .sendCheckpoint(
                .with {
                    $0.step = word(&random)
                    $0.recovery = random.chance(500)
                })
        case 20:
            return .releaseCheckpoint(
                .with {
                    $0.step = word(&random)
                    $0.donation = random.chance(500)
                })
        case 21:
            return .slotDetail(
                .with {
                    $0.step = word(&random)
                    $0.slot = small()
                    $0.first = small()
                    $0.values = Data(repeating: 1, count: random.below(20))
                })
        default:
            return .donateState(
                .with {
                    $0.step = word(&random)
                    $0.worker = text(&random)
                })
        }
    }

    static func hello(_ random: inout FuzzRandom) -> WireHello {
        .with {
            $0.lineupVersion = "test"
            $0.role = random.pick([.trainer, .evaluator, .observer])
            $0.worker = text(&random)
            $0.dataAddress = "tcp://10.0.0.1:4000"
            $0.hasState_p = random.chance(500)
            $0.stateStep = word(&random)
            $0.history = word(&random)
            $0.hasStaged_p = random.chance(500)
            $0.stagedStep = word(&random)
            $0.heldSlots = [0, UInt32(truncatingIfNeeded: word(&random))]
            $0.copies = [word(&random)]
            $0.term = random.chance(50) ? word(&random) : 0
        }
    }

    static func rows(_ random: inout FuzzRandom) -> WireEvaluationRows {
        .with {
            $0.step = word(&random)
            $0.set = text(&random)
            $0.checkpointDigest = word(&random)
            $0.started = Double(bitPattern: random.number())
            $0.finished = 2
            $0.metrics = [
                .with {
                    $0.metric = "mean_loss"
                    $0.value = Double(bitPattern: random.number())
                }
            ]
            $0.failure = random.chance(300) ? text(&random) : ""
        }
    }

    static func plan(_ random: inout FuzzRandom) -> WirePlan {
        .with { plan in
            plan.term = word(&random)
            plan.generation = word(&random)
            plan.step = word(&random)
            plan.history = word(&random)
            plan.fold = UInt32(truncatingIfNeeded: word(&random))
            plan.members = ["t0", "t1"].map { name in .with { $0.worker = name } }
            plan.leases = (0..<2).map { slot in
                .with {
                    $0.slot = UInt32(slot)
                    $0.worker = "t\(slot)"
                    $0.attempt = 1
                }
            }
            plan.samples = [
                .with {
                    $0.step = plan.step
                    $0.slots = [.with { $0.indices = [1, 2] }, .with { $0.indices = [3] }]
                }
            ]
            plan.checkpoint.step = word(&random)
            plan.checkpoint.primary = text(&random)
            plan.donor = text(&random)
        }
    }

    /// The message with some of its bytes changed, where that is still a message.
    static func mutated(_ body: WireBody, _ random: inout FuzzRandom) -> WireBody? {
        let frame = mutated(Array(WireCodec.encode(body, run: 1)), others: [], &random)
        return frame.withUnsafeBytes { try? WireCodec.decode($0) }?.body
    }

    /// A frame with some of its bytes changed; most get the digest that fits, so that more than the
    /// digest is looked at.
    static func mutated(
        _ frame: [UInt8], others: [[UInt8]], _ random: inout FuzzRandom
    ) -> [UInt8] {
        guard random.chance(950) else {
            return Mutator.mutate(frame, .bytes, others: others, using: &random)
        }
        let message = Mutator.mutate(
            Array(frame.dropLast(8)), .protobuf, others: others, using: &random)
        return Array(WireCodec.sealed(Data(message)))
    }
}

/// Frames of the control channel.
struct ControlTarget: FuzzTarget {
    static let name = "control"
    static let share = 2500
    static let episodeFrames = 100

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        let valid = (0..<6).map { _ in
            Array(WireCodec.encode(Messages.anything(&random), run: Messages.word(&random)))
        }
        for _ in 0..<frames {
            let frame = Messages.mutated(random.pick(valid), others: valid, &random)
            log.feed(frame)
            guard let read = frame.withUnsafeBytes({ try? WireCodec.decode($0) }),
                let body = read.body
            else { continue }
            // What was understood is said and understood again.
            let again = WireCodec.encode(body, run: read.run)
            guard let twice = try? again.withUnsafeBytes({ try WireCodec.decode($0) }),
                WireCodec.encode(twice.body!, run: twice.run) == again
            else { throw FuzzFailure("a message that was read is not read again") }
        }
    }
}

/// Headers of data frames.
struct DataHeaderTarget: FuzzTarget {
    static let name = "data-header"
    static let share = 1500
    static let episodeFrames = 100

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        let valid = (0..<6).map { _ -> [UInt8] in
            Array(
                WireCodec.encode(
                    WireDataHeader.with {
                        $0.kind = random.pick([.partial, .result, .state, .checkpoint, .fetch])
                        $0.run = 1
                        $0.history = random.number()
                        $0.step = Messages.word(&random)
                        $0.block = UInt32(truncatingIfNeeded: random.number())
                        $0.low = 0
                        $0.high = UInt32(truncatingIfNeeded: Messages.word(&random))
                        $0.digest = random.next()
                        $0.offset = random.number()
                        $0.total = random.number()
                        $0.length = random.number()
                        $0.file = Messages.text(&random)
                    }))
        }
        for _ in 0..<frames {
            let frame = Messages.mutated(random.pick(valid), others: valid, &random)
            log.feed(frame)
            guard let header = frame.withUnsafeBytes({ try? WireCodec.decodeHeader($0) })
            else { continue }
            let again = WireCodec.encode(header)
            guard let twice = try? again.withUnsafeBytes({ try WireCodec.decodeHeader($0) }),
                twice == header || again == WireCodec.encode(twice)
            else { throw FuzzFailure("a header that was read is not read again") }
        }
    }
}
