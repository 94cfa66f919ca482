import Foundation
import Tensors
import Testing

@Suite struct EngineTests {
    init() throws { try EngineFixture.open() }

    @Test func versionIsOneThatLineupSupports() throws {
        let version = try Engine.version()
        #expect(["2.11.", "2.12.", "2.13."].contains { version.hasPrefix($0) }, "\(version)")
        #expect(!(try Engine.cpuCapability()).isEmpty)
        #expect(try Engine.configuration().contains("PyTorch built with"))
        #expect(Engine.isAvailable)
    }

    @Test func shimIsLookedForBesideTheExecutable() {
        let places = EngineLoader.candidates(
            environment: nil, executable: "/opt/lineup/bin/lineup")
        #expect(
            places == [
                "/opt/lineup/bin/libCTorch.so", "/opt/lineup/bin/../ctorch/libCTorch.so",
                "/opt/lineup/bin/../../ctorch/libCTorch.so", "/opt/lineup/bin/../lib/libCTorch.so",
            ])
    }

    @Test func environmentNamesTheShimAlone() {
        let places = EngineLoader.candidates(environment: "/x/y.so", executable: "/bin/lineup")
        #expect(places == ["/x/y.so"])
    }

    @Test func missingShimSaysWhereItLookedAndWhatToRun() throws {
        let error = EngineLoader.missing(["/a/libCTorch.so", "/b"], fromEnvironment: false)
        #expect(error.code == .engineMissing)
        for part in ["/a/libCTorch.so", "/b", "make setup", "make build", "LINEUP_CTORCH"] {
            #expect(error.message.contains(part), "\(error.message)")
        }
        #expect(!error.message.contains("\n"))
    }

    @Test func brokenShimIsAnErrorThatNamesTheFile() throws {
        let path = NSTemporaryDirectory() + "shim-\(UUID().uuidString).so"
        try Data("not a library".utf8).write(to: URL(fileURLWithPath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        let error = try tensorError { try EngineLoader.check(path: path) }
        #expect(error.code == .engineMissing)
        #expect(error.message.contains(path))
    }

    @Test func libraryThatIsNotTheShimIsRefused() throws {
        let error = try tensorError { try EngineLoader.check(path: "libm.so.6") }
        #expect(error.code == .engineMismatch)
        #expect(error.message.contains("libm.so.6"))
    }

    @Test func numericsSwitchesAreReadBackAsSet() throws {
        let before = try Engine.numerics()
        defer { try? Engine.setNumerics(before) }
        try Engine.setNumerics(.bitwise)
        #expect(try Engine.numerics() == .bitwise)
    }

    @Test(arguments: [
        ("cpu", Device.cpu), ("cuda", .cuda(0)), ("cuda:0", .cuda(0)), ("cuda:13", .cuda(13)),
    ])
    func deviceIsParsed(text: String, device: Device) throws {
        #expect(try Device(parsing: text) == device)
        #expect(try Device(parsing: device.description) == device)
    }

    @Test(arguments: [
        "", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:1:2", "cpu:1", "cuda:999", "CUDA:0", " cpu",
        "cuda:+1", "cuda:99999999999999999999",
    ])
    func unknownDeviceIsBadInput(text: String) throws {
        let error = try tensorError { _ = try Device(parsing: text) }
        #expect(error.isBadInput)
        #expect(error.message.contains("'\(text)'"))
    }

    @Test func deviceThatIsNotHereIsBadInput() throws {
        let count = try Engine.deviceCount(.cuda)
        let error = try tensorError { try Device.cuda(count).requireAvailable() }
        #expect(error.isBadInput)
        #expect(error.message.contains("cuda:\(count)"))
        try Device.cpu.requireAvailable()
        #expect(try Engine.devices().last == .cpu)
    }

    @Test func absentDeviceThrowsRatherThanTraps() throws {
        let absent = Device.cuda(try Engine.deviceCount(.cuda))
        _ = try tensorError { _ = try Tensor.zeros([2], device: absent) }
        _ = try tensorError { try absent.synchronize() }
        _ = try tensorError { _ = try absent.memory() }
        _ = try tensorError { _ = try absent.model() }
        _ = try tensorError { _ = try DeviceEvent(recordingOn: absent) }
        _ = try tensorError { _ = try DeviceEvent(recordingOn: .cpu) }
        try Device.cpu.synchronize()
    }
}
