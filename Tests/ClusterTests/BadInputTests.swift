import Basics
import FaultRig
import Foundation
import Storage
import Testing

/// What users type wrongly: one line, a code that is not zero, nothing lost.
@Suite(.serialized) struct BadInputTests {
    /// Runs a command that must fail with one line that has all of `parts`.
    private func refused(
        _ arguments: [String], code expected: Int32 = 2, saying parts: [String],
        _ location: SourceLocation = #_sourceLocation
    ) throws {
        try expectRefusal(
            LineupProcess(arguments), code: expected, saying: parts, location: location)
    }

    @Test(.timeLimit(.minutes(2)))
    func settings() throws {
        let run = LocalRun.folder("mistyped")
        let crops = try LocalRun.crops.get()
        let data = ["--set", "data.root=\(crops)"]
        try refused(
            ["train", run, "--set", "loss.margn=0.3"] + data, saying: ["loss.margn", "loss.margin"])
        try refused(
            ["train", run, "--set", "schedule.steps=many"] + data,
            saying: ["schedule.steps", "many"])
        try refused(
            ["train", run, "--set", "batch.identities=100000"] + data,
            saying: ["batch.identities", "100000", "identities"])
        try refused(
            ["train", run, "--set", "network.weights=w.safetensors"] + data,
            saying: ["network.weights", "w.safetensors"])
        try refused(
            ["train", run, "--set", "network.freeze=layer9.*"] + data,
            saying: ["network.freeze", "layer9.*", "no parameter of resnet50"])
        try refused(
            ["train", run, "--set", "batch.phases=5:100000x4"] + data, saying: ["batch.phases"])
        try refused(
            ["train", run, "--set", "batch.phases=5:60000x4"] + data,
            saying: ["batch.phases) is 60000", "identities"])
        try refused(
            ["train", run, "--evaluators", "0", "--set", "schedule.name=plateau"] + data,
            saying: ["--evaluators is 0", "plateau"])
        try refused(
            [
                "train", run, "--set", "schedule.stop_patience=3", "--set",
                "checkpoint.every_steps=0",
            ]
                + data, saying: ["stop_patience", "checkpoint.every_steps"])
        try refused(
            ["train", run, "--set", "loss.plus=softmx"] + data, saying: ["loss.plus", "softmx"])
        try refused(
            [
                "train", run, "--set", "schedule.name=plateau", "--set", "checkpoint.keep_last=1",
                "--set", "checkpoint.keep_unscored=1", "--set", "checkpoint.every_steps=40",
            ] + data, saying: ["checkpoint.keep_unscored is 1", "at least 3"])
        try refused(["train", run], saying: ["data.root"])
        try refused(
            ["train", run, "--set", "data.root=/nowhere/at/all"], saying: ["/nowhere/at/all"])
        try refused(["resume", run], saying: [run, "lineup train"])
        try refused(["trian", run], saying: ["trian", "train"])
        // Nothing was left behind that a later command would stumble over.
        #expect(!FileManager.default.fileExists(atPath: run + "/settings.json"))
    }

    @Test(.timeLimit(.minutes(2)))
    func addresses() throws {
        try refused(
            ["trainer", "--coordinator", "tcp://127.0.0.1:9", "--patience", "2"],
            saying: ["tcp://127.0.0.1:9", "no coordinator"])
        try refused(["trainer", "--coordinator", "head:5555"], saying: ["head:5555", "tcp://"])
        try refused(
            ["evaluator", "--coordinator", "tcp://127.0.0.1:9", "--patience", "2"],
            saying: ["tcp://127.0.0.1:9"])
        try refused(
            ["coordinator", LocalRun.folder("open"), "--bind", "tcp://0.0.0.0:0"]
                + LocalRun.settings(steps: 4), saying: ["0.0.0.0", "--insecure"])
        try refused(["watch", "/nowhere"], saying: ["/nowhere"])
    }

    @Test(.timeLimit(.minutes(3)))
    func aRunKeepsItsSettingsAndItsData() throws {
        let run = LocalRun.folder("kept")
        let process = try LocalRun.start(run, steps: 4, trainers: 1)
        #expect(try process.wait() == 0, "\(process.errors)")
        try aReaderThatLeavesEndsTheCommandQuietly(run)
        try refused(
            ["train", run] + LocalRun.settings(steps: 4), saying: ["exists", "lineup resume"])
        try refused(
            ["resume", run, "--set", "loss.margin=0.1"], saying: ["loss.margin", "0.1", "0.5"])
        let other = LocalRun.folder("other")
        try FileManager.default.copyItem(atPath: try LocalRun.crops.get(), toPath: other)
        let catalogue = other + "/catalogue.csv"
        var lines = try String(contentsOfFile: catalogue, encoding: .utf8)
            .split(separator: "\n", omittingEmptySubsequences: false)
        lines.remove(at: 5)
        try lines.joined(separator: "\n").write(
            toFile: catalogue, atomically: true, encoding: .utf8)
        try refused(["resume", run, "--data-root", other], saying: [other])
    }

    @Test(.timeLimit(.minutes(3)))
    func aCorruptImageIsNamed() throws {
        let crops = LocalRun.folder("corrupt")
        try FileManager.default.copyItem(atPath: try LocalRun.crops.get(), toPath: crops)
        let images = try #require(
            FileManager.default.enumerator(atPath: crops)?.compactMap { $0 as? String }
                .filter { $0.hasSuffix(".jpg") && $0.contains("train") })
        for image in images {
            let path = crops + "/" + image
            let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
            try bytes.prefix(bytes.count / 2).write(to: URL(fileURLWithPath: path))
        }
        var settings = try LocalRun.settings(steps: 4)
        settings[1] = "data.root=\(crops)"
        try refused(
            ["train", LocalRun.folder("c"), "--trainers", "1", "--evaluators", "0"] + settings,
            code: 1, saying: [".jpg"])
    }

    @Test(.timeLimit(.minutes(3)), arguments: ["slot", "step"])
    func aLossThatIsNoNumberEndsTheRunAndTheStateBeforeIsKept(scope: String) throws {
        let run = LocalRun.folder("diverged-\(scope)")
        let wild = LocalRun.options([
            "optimizer.name=sgd", "optimizer.learning_rate=1000", "loss.distance=sqeuclidean",
            "loss.margin=soft", "mining.scope=\(scope)",
        ])
        try refused(
            ["train", run, "--trainers", "2", "--evaluators", "0"]
                + LocalRun.settings(steps: 400, every: 400) + wild,
            code: 1, saying: ["diverged", "optimizer.learning_rate", "last good"])
        let reader = try LedgerReader(run: run)
        let last = try #require(try reader.steps().last?.step)
        let events = try reader.events().filter { $0.kind == "diverged" }
        try reader.close()
        #expect(last > 0)
        #expect(events.count == 1)
        // A slot of four identities with four images each; with two phases it is found before the loss.
        #expect(events[0].text.components(separatedBy: ".jpg").count == 17, "\(events[0].text)")
        let kept = try FileManager.default.contentsOfDirectory(
            atPath: run + "/checkpoints/recovery")
        #expect(kept.contains { $0.contains("\(last).safetensors") }, "step \(last): \(kept)")
    }

    @Test(
        .enabled(if: SmallDisk.obstacle == nil, "needs root and mount"), .timeLimit(.minutes(4)),
        arguments: [1_200, 2_500, 4_000])
    func aFullDiskEndsTheRunAndLosesNothing(kilobytes: Int) throws {
        let disk = try SmallDisk(LocalRun.folder("full-\(kilobytes)"), kilobytes: kilobytes)
        defer { disk.remove() }
        let run = disk.path + "/run"
        try refused(
            ["train", run, "--trainers", "1", "--evaluators", "0"]
                + LocalRun.settings(steps: 24, every: 1), code: 1, saying: ["space"])
        try disk.grow(kilobytes: 64_000)
        let again =
            FileManager.default.fileExists(atPath: run + "/settings.json")
            ? try LocalRun.resume(run, trainers: 1)
            : try LineupProcess(
                ["train", run, "--trainers", "1", "--evaluators", "0"]
                    + LocalRun.settings(steps: 24, every: 1))
        #expect(try again.wait() == 0, "\(again.errors)")
        #expect(
            try LocalRun.weights(run, step: 24) == ClusterTests.undisturbed.get().weights)
        try LocalRun.checkLedger(run, steps: 24)
    }

    @Test(.timeLimit(.minutes(3)))
    func garbageOnThePortChangesNothing() throws {
        let run = LocalRun.folder("garbage")
        // Long enough to be there when the last of it comes.
        let steps = 150
        let process = try LocalRun.start(run, steps: steps, every: steps, trainers: 1)
        try LocalRun.wait(for: 2, in: run, of: process)
        struct Address: Decodable { let address: String }
        let file = URL(fileURLWithPath: run + "/coordinator.json")
        let address = try JSONDecoder().decode(Address.self, from: Data(contentsOf: file)).address
        let port = try #require(UInt16(address.split(separator: ":").last ?? ""))
        for round in 0..<50 {
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            var target = sockaddr_in()
            target.sin_family = sa_family_t(AF_INET)
            target.sin_port = port.bigEndian
            target.sin_addr.s_addr = inet_addr("127.0.0.1")
            let connected = withUnsafePointer(to: &target) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
            #expect(connected == 0)
            let bytes = (0..<64 * (round + 1)).map { _ in UInt8.random(in: .min ... .max) }
            _ = bytes.withUnsafeBytes {
                send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            close(descriptor)
        }
        #expect(try process.wait() == 0, "\(process.errors)")
        try LocalRun.checkLedger(run, steps: steps)
    }

    /// `lineup ledger RUN --json | head` has a reader that leaves.
    private func aReaderThatLeavesEndsTheCommandQuietly(_ run: String) throws {
        let (output, errors) = (Pipe(), Pipe())
        try output.fileHandleForReading.close()
        let process = try ChildProcess(
            [try LineupProcess.executable().path, "ledger", run, "--json"],
            output: output.fileHandleForWriting.fileDescriptor,
            error: errors.fileHandleForWriting.fileDescriptor)
        try errors.fileHandleForWriting.close()
        #expect(process.wait() == 128 + SIGPIPE)
        #expect(errors.fileHandleForReading.readDataToEndOfFile().isEmpty)
    }

    @Test func withoutLibTorchTheRestStillWorks() throws {
        let process = try ChildProcess(
            [try LineupProcess.executable().path, "params"],
            environment: ["LINEUP_CTORCH": "/nowhere/libCTorch.so"])
        #expect(process.wait() == 0)
    }
}
