import EvalWorker
import Foundation
import Scoring
import Storage
import Testing

struct EvaluationFileTests {
    private func file(_ step: Int, _ set: String, value: Double? = nil) -> EvaluationFile {
        var result = TestRun.result(set, step)
        if let value { result.metrics[.generalAccuracy] = value }
        return EvaluationFile(
            step: step, result: result, weightsDigest: 0xABC, datasetDigest: 1,
            numericsClass: "test", evaluator: "host:1")
    }

    @Test func whatIsWrittenIsRead() throws {
        let run = try TestRun()
        #expect(try file(20, "val_eval", value: 0.1 + 0.2).write(run: run.path))
        let read = try EvaluationFile.read(run: run.path, EvaluationTask(step: 20, set: "val_eval"))
        #expect(read.agrees(with: file(20, "val_eval", value: 0.1 + 0.2)))
        #expect(read.metrics["general_accuracy"] == 0.1 + 0.2)
        #expect(read.metrics["mean_loss"]?.isNaN == true)
        #expect(read.started == 1_700_000_000.25)
        let text = try String(
            contentsOfFile: run.path + "/evaluations/20-val_eval.json", encoding: .utf8)
        #expect(text.contains("\"mean_loss\" : null"))
        let names = read.records.map(\.metric)
        #expect(names == ["general_accuracy", "mean_loss", "tuples"])
        #expect(read.records.allSatisfy { $0.step == 20 && $0.evaluator == "host:1" })
    }

    @Test func theLedgersReaderUnderstandsIt() throws {
        let run = try TestRun()
        #expect(try file(20, "val_eval").write(run: run.path))
        let found = try FolderEvaluation.all(run: run.path) { Issue.record("\($0)") }
        #expect(found.count == 1)
        #expect(found.first?.weightsDigest == 0xABC)
        #expect(found.first?.records.count == 3)
    }

    @Test func secondResultIsComparedAndTheFirstStays() throws {
        let run = try TestRun()
        #expect(try file(0, "val_eval", value: 0.5).write(run: run.path))
        #expect(try !file(0, "val_eval", value: 0.5).write(run: run.path))
        let error = #expect(throws: EvalWorkerError.self) {
            try file(0, "val_eval", value: 0.5.nextUp).write(run: run.path)
        }
        #expect(error?.code == .disagreement)
        #expect(error?.message.contains("general_accuracy is 0.5 there") == true)
        let kept = try EvaluationFile.read(run: run.path, EvaluationTask(step: 0, set: "val_eval"))
        #expect(kept.metrics["general_accuracy"] == 0.5)
    }

    @Test func brokenFilesAreReportedAndForeignOnesLeftAlone() throws {
        let run = try TestRun()
        for (step, set) in [(100, "a"), (20, "b"), (20, "a")] {
            #expect(try file(step, set).write(run: run.path))
        }
        let folder = run.path + "/evaluations/"
        try Data("{".utf8).write(to: URL(filePath: folder + "3-a.json"))
        try Data().write(to: URL(filePath: folder + "4-a.json"))
        try FileManager.default.copyItem(atPath: folder + "20-a.json", toPath: folder + "5-a.json")
        for name in ["notes.txt", "x-a.json", "06-a.json", "-1-a.json", ".tmp-1", "7.json"] {
            try Data("?".utf8).write(to: URL(filePath: folder + name))
        }
        let (files, problems) = EvaluationFile.readAll(run: run.path)
        #expect(files.map(\.task.description) == ["20-a", "20-b", "100-a"])
        #expect(problems.count == 3)
        #expect(EvaluationFile.readAll(run: run.path + "/none").files.isEmpty)
    }
}
