import Basics
import FaultRig
import Foundation
import Storage
import Testing

/// Triplets that are mined offline, given and trained on: real processes on real data.
@Suite(.serialized) struct TripletTests {
    private static let steps = 24

    private static func values(_ loss: String, triplets: Int) throws -> [String] {
        try LocalRun.values(steps: steps).filter {
            !$0.hasPrefix("batch.i") && !$0.hasPrefix("loss.")
        } + ["loss.name=\(loss)", "batch.triplets=\(triplets)"]
    }

    private static func train(
        _ run: String, trainers: Int, _ values: [String]
    ) throws -> LineupProcess {
        try LineupProcess(
            ["train", run, "--trainers", "\(trainers)", "--evaluators", "0"]
                + LocalRun.options(values))
    }

    private static func mine(_ arguments: [String], to file: String) throws -> String {
        let process = try LineupProcess(["mine"] + arguments + ["--out", file])
        try #require(try process.wait() == 0, "\(process.errors)")
        return try String(contentsOfFile: file, encoding: .utf8)
    }

    /// Random triplets of all training images.
    private static let coarse: Result<(file: String, text: String), any Error> = Result {
        let crops = try LocalRun.crops.get()
        let file = LocalRun.folder("coarse") + ".csv"
        return (file, try mine(["--data-root", crops, "--kind", "random"], to: file))
    }

    /// Whale's loss on them, undisturbed, with one trainer.
    private static let calm: Result<String, any Error> = Result {
        let run = LocalRun.folder("triplets-calm")
        let process = try train(
            run, trainers: 1,
            try values("triplet", triplets: 4) + ["data.triplets=\(try coarse.get().file)"])
        try #require(try process.wait() == 0, "\(process.errors)")
        return run
    }

    // MARK: A file

    @Test(.timeLimit(.minutes(4)))
    func twoTrainersAndAKillTrainOnTheFileToTheSameWeights() throws {
        let source = LocalRun.folder("given") + ".csv"
        try Self.coarse.get().text.write(toFile: source, atomically: true, encoding: .utf8)
        let run = LocalRun.folder("triplets-killed")
        let process = try Self.train(
            run, trainers: 2,
            try Self.values("triplet", triplets: 4) + ["data.triplets=\(source)"])
        try LocalRun.wait(for: 11, in: run, of: process)
        process.killTree()
        // The run has a copy of its own, and knows when it is another.
        try FileManager.default.removeItem(atPath: source)
        let copy = run + "/triplets.csv"
        let text = try Self.coarse.get().text
        try (text.dropLast(5) + "\n").write(toFile: copy, atomically: true, encoding: .utf8)
        try expectRefusal(
            LineupProcess(["resume", run]), saying: ["triplets.csv has digest", "trains on"])
        try FileManager.default.removeItem(atPath: copy)
        try expectRefusal(LineupProcess(["resume", run]), saying: ["triplets.csv is missing"])
        try text.write(toFile: copy, atomically: true, encoding: .utf8)
        let again = try LocalRun.resume(run, trainers: 2)
        #expect(try again.wait() == 0, "\(again.errors)")
        let calm = try Self.calm.get()
        #expect(
            try LocalRun.weights(run, step: Self.steps)
                == LocalRun.weights(calm, step: Self.steps))
        #expect(try ClusterTests.ledgerDigest(run) == ClusterTests.ledgerDigest(calm))
        #expect(
            try LocalRun.weights(calm, step: Self.steps) != LocalRun.weights(calm, step: 0))
    }

    @Test(.timeLimit(.minutes(3))) func badFilesAreRefusedBeforeAnythingIsWritten() throws {
        let lines = try Self.coarse.get().text.split(separator: "\n").map(String.init)
        let fields = lines[1].split(separator: ",").map(String.init)
        let run = LocalRun.folder("triplets-bad")
        let file = LocalRun.folder("bad") + ".csv"
        func refused(_ lines: [String], saying parts: [String]) throws {
            try (lines.joined(separator: "\n") + "\n").write(
                toFile: file, atomically: true, encoding: .utf8)
            try expectRefusal(
                LineupProcess(
                    ["train", run]
                        + LocalRun.options(
                            try Self.values("triplet", triplets: 4) + ["data.triplets=\(file)"])),
                saying: parts)
            #expect(!FileManager.default.fileExists(atPath: run + "/settings.json"))
        }
        try refused(["anchor,negative", "a,b"], saying: ["\(file):1", "'positive' is missing"])
        try refused(
            lines.prefix(3) + ["\(fields[0]),nowhere.jpg,\(fields[2])"],
            saying: ["\(file):4: positive is 'nowhere.jpg'", "does not list"])
        try refused(
            [lines[0], "\(fields[0]),\(fields[0]),\(fields[2])"],
            saying: ["\(file):2", "anchor and positive are both"])
        try refused(
            [lines[0], "\(fields[0]),\(fields[1]),\(fields[1])"],
            saying: ["\(file):2: negative", "as the anchor does"])
        try refused(Array(lines.prefix(4)), saying: ["batch.triplets is 4", "has 3"])
    }

    // MARK: lineup mine

    @Test(.timeLimit(.minutes(3)), arguments: ["hard_centroid", "hard_similarity"])
    func hardTripletsAreThoseOfTheCheckpoint(kind: String) throws {
        let run = try Self.calm.get()
        let file = LocalRun.folder("fine-\(kind)") + ".csv"
        let newest = try Self.mine([run, "--kind", kind, "--threads", "1"], to: file)
        let same = try Self.mine(["\(run)@24", "--kind", kind, "--threads", "3"], to: file)
        let earlier = try Self.mine(["\(run)@8", "--kind", kind], to: file)
        #expect(newest == same && newest != earlier)
        #expect(newest.hasPrefix("anchor,positive,negative\n"))
        #expect(newest.split(separator: "\n").count > 60)
        // What it writes can be trained on.
        let next = LocalRun.folder("next-\(kind)")
        let process = try Self.train(
            next, trainers: 1,
            try Self.values("dot_triplet", triplets: 4) + [
                "data.triplets=\(file)", "network.weights=\(run)", "network.weights_scope=all",
                "loss.positive_threshold=0.9",
            ])
        #expect(try process.wait() == 0, "\(process.errors)")
    }

    @Test(.timeLimit(.minutes(2))) func whatCannotBeMinedIsOneLine() throws {
        let out = ["--out", LocalRun.folder("none") + ".csv"]
        let crops = try LocalRun.crops.get()
        func refused(_ arguments: [String], saying parts: [String]) throws {
            try expectRefusal(LineupProcess(["mine"] + arguments + out), saying: parts)
        }
        try refused(["--kind", "random"], saying: ["--data-root"])
        try refused(
            ["--data-root", crops, "--kind", "hard_centroid"], saying: ["name a run", "RUN@STEP"])
        try refused(
            ["\(try Self.calm.get())@7", "--kind", "hard_centroid"],
            saying: ["no checkpoint of step 7", "0, 8, 16, 24"])
        try refused(
            [LocalRun.folder("nothing"), "--kind", "random"], saying: ["settings.json is missing"])
        try refused(
            ["--data-root", crops, "--kind", "random", "--anchors", "0"],
            saying: ["--anchors is 0"])
    }

    // MARK: Rounds of a run

    private static func roundFiles(_ run: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: run + "/triplets")
            .filter { $0.hasPrefix("step-") }.sorted()
    }

    @Test(.timeLimit(.minutes(5)), arguments: ["random", "hard_centroid", "hard_similarity"])
    func roundsAreTheSameForAnyTrainersAndAfterACrash(kind: String) throws {
        let values =
            try Self.values(kind == "hard_similarity" ? "dot_triplet" : "triplet", triplets: 2) + [
                "mining.offline=\(kind)", "mining.every_steps=8",
            ]
        let calm = LocalRun.folder("rounds-calm-\(kind)")
        let undisturbed = try Self.train(calm, trainers: 1, values)
        #expect(try undisturbed.wait() == 0, "\(undisturbed.errors)")
        let files = try Self.roundFiles(calm)
        #expect(files.count == 3 && Set(files.map { $0.prefix(14) }).count == 3, "\(files)")

        let run = LocalRun.folder("rounds-killed-\(kind)")
        let process = try Self.train(run, trainers: 3, values)
        try LocalRun.wait(for: 11, in: run, of: process)
        process.killTree()
        // Somebody changes what the steps after 8 train on; it is not trained on.
        let name = try #require(try Self.roundFiles(run).last)
        let step = try #require(Int(name.dropFirst(5).prefix(9)))
        let file = run + "/triplets/" + name
        let text = try String(contentsOfFile: file, encoding: .utf8)
        let lines = text.split(separator: "\n")
        try (lines.dropLast().joined(separator: "\n") + "\n").write(
            toFile: file, atomically: true, encoding: .utf8)
        try expectRefusal(
            LineupProcess(["resume", run, "--trainers", "1", "--evaluators", "0"]), code: 1,
            saying: ["triplets of step \(step)", "was changed"])
        // Without it they are mined again, to the same.
        try FileManager.default.removeItem(atPath: file)
        let again = try LocalRun.resume(run, trainers: 2)
        #expect(try again.wait() == 0, "\(again.errors)")
        #expect(try String(contentsOfFile: file, encoding: .utf8) == text)
        #expect(try Self.roundFiles(run) == files)
        #expect(
            try LocalRun.weights(run, step: Self.steps)
                == LocalRun.weights(calm, step: Self.steps))
        #expect(try ClusterTests.ledgerDigest(run) == ClusterTests.ledgerDigest(calm))
        // The command mines what the run does: 8 steps of 4 slots of 2.
        let mined = try Self.mine(
            ["\(calm)@\(step)", "--kind", kind, "--anchors", "64"],
            to: LocalRun.folder("again-\(kind)") + ".csv")
        #expect(mined == text)
        let reader = try LedgerReader(run: calm)
        let told = try reader.events().filter { $0.kind == "triplets" }
        try reader.close()
        #expect(told.count == 3 && told[0].text.contains("triplets of step 0"), "\(told)")
    }
}
