import ClusterCore
import Foundation
import Protocol
import SwiftProtobuf
import Testing

/// Who may say what to a coordinator; everything else is an event and nothing more.
@Suite struct RoleTests {
    private enum Speaker: String, CaseIterable {
        case trainer, evaluator, observer, stranger

        var role: WireRole {
            switch self {
            case .trainer, .stranger: .trainer
            case .evaluator: .evaluator
            case .observer: .observer
            }
        }
    }

    /// Every message there is, with who says it.
    private static let bodies: [(name: String, body: WireBody, speakers: [Speaker])] = [
        ("prepared", .prepared(WirePrepared()), [.trainer, .evaluator]),
        ("slot done", .slotDone(.with { $0.step = 1 }), [.trainer]),
        ("ready", .ready(.with { $0.step = 1 }), [.trainer]),
        ("progress", .progress(WireProgress()), [.trainer, .evaluator, .observer]),
        ("state loaded", .stateLoaded(WireStateLoaded()), [.trainer]),
        ("slot returned", .slotReturned(.with { $0.step = 1 }), [.trainer]),
        ("goodbye", .goodbye(WireGoodbye()), [.trainer, .evaluator, .observer]),
        ("poll", .evaluationPoll(WireEvaluationPoll()), [.evaluator]),
        ("rows", .evaluationRows(.with { $0.set = "val_eval" }), [.evaluator]),
        ("checkpoint failed", .checkpointFailed(WireCheckpointFailed()), [.trainer]),
        ("state awaited", .stateAwaited(WireStateAwaited()), [.trainer]),
        ("welcome", .welcome(WireWelcome()), []),
        ("refusal", .refusal(WireRefusal()), []),
        ("load", .loadState(WireLoadState()), []),
        ("plan", .plan(.with { $0.step = 1 }), []),
        ("commit", .commit(.with { $0.step = 1 }), []),
        ("grant", .evaluationGrant(WireEvaluationGrant()), []),
        ("ack", .evaluationAck(WireEvaluationAck()), []),
        ("stop", .stop(WireStop()), []),
        ("status", .status(WireStatus()), []),
        ("send checkpoint", .sendCheckpoint(WireSendCheckpoint()), []),
        ("release checkpoint", .releaseCheckpoint(WireReleaseCheckpoint()), []),
        ("donate", .donateState(WireDonateState()), []),
        ("admission", .admission(WireAdmission()), []),
    ]

    /// A step under way between two trainers, with an evaluator and an observer.
    private static func cluster() -> SmallCluster {
        var cluster = SmallCluster(["trainer", "other"])
        for speaker in [Speaker.evaluator, .observer] {
            var hello = WireHello()
            hello.lineupVersion = "test"
            hello.role = speaker.role
            hello.worker = speaker.rawValue
            cluster.hear(.hello(hello), from: speaker.rawValue)
        }
        return cluster
    }

    private static func encoded(_ machine: CoordinatorStateMachine) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        return String(decoding: try encoder.encode(machine), as: UTF8.self)
    }

    @Test(arguments: Speaker.allCases)
    private func whatARoleDoesNotSayChangesNothing(speaker: Speaker) throws {
        var refused = 0
        for (name, body, speakers) in Self.bodies where !speakers.contains(speaker) {
            refused += 1
            var cluster = Self.cluster()
            let before = try Self.encoded(cluster.machine)
            let actions = cluster.hear(body, from: speaker.rawValue)
            #expect(try Self.encoded(cluster.machine) == before, "\(name)")
            switch (speaker, actions.first) {
            // Whoever is not known starts over.
            case (.stranger, .send(.stop(let stop), to: "stranger")):
                #expect(stop.reason == .expelled && actions.count == 1, "\(name)")
            case (_, .event("protocol", .warning, let text)):
                #expect(text.contains(speaker.rawValue) && actions.count == 1, "\(name)")
            default: Issue.record("\(name): \(actions)")
            }
        }
        #expect(refused >= 14)
    }

    @Test(arguments: Speaker.allCases.filter { $0 != .stranger })
    private func whatARoleSaysIsNoBreachOfProtocol(speaker: Speaker) {
        for (name, body, speakers) in Self.bodies where speakers.contains(speaker) {
            var cluster = Self.cluster()
            cluster.hear(body, from: speaker.rawValue)
            #expect(cluster.events["protocol"] == nil, "\(name)")
        }
    }
}
