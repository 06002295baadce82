"""Reflection by raw messages, both versions alike: every name that the API declares leads to its file."""

from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as reflection

from engine.rpc.reflection import FileIndex, UnknownName
from engine.rpc.server import Server
from engine_client.v1 import event_pb2, experiment_pb2, recommendation_pb2
from tests.engine.rpc.conftest import OpenChannel, StartServer

VERSIONS = ["v1", "v1alpha"]
Request = reflection.ServerReflectionRequest


class _Log:
    async def append(self, events: object) -> None:
        raise AssertionError("nobody records here")


class _Reporter:
    async def report(self, question: object) -> None:
        raise AssertionError("nobody asks here")


@pytest.fixture(params=VERSIONS)
async def ask(
    request: pytest.FixtureRequest, start_server: StartServer, open_channel: OpenChannel
) -> Callable[..., object]:
    """Sends all questions over one stream and returns the answers, in their order."""
    server: Server = await start_server(event_log=_Log(), reporter=_Reporter())
    call = open_channel(server).stream_stream(
        f"/grpc.reflection.{request.param}.ServerReflection/ServerReflectionInfo",
        request_serializer=Request.SerializeToString,
        response_deserializer=reflection.ServerReflectionResponse.FromString,
    )

    async def answers(*questions: Request) -> list[reflection.ServerReflectionResponse]:
        return [answer async for answer in call(iter(questions), timeout=30)]

    return answers


def names_of(file: FileDescriptor) -> Iterator[str]:
    yield from (extension.full_name for extension in file.extensions_by_name.values())
    for service in file.services_by_name.values():
        yield service.full_name
        yield from (method.full_name for method in service.methods)
    for enum in file.enum_types_by_name.values():
        yield from names_of_enum(enum, file.package)
    for message in file.message_types_by_name.values():
        yield from names_of_message(message)


def names_of_message(message: Descriptor) -> Iterator[str]:
    yield message.full_name
    yield from (field.full_name for field in message.fields)
    yield from (oneof.full_name for oneof in message.oneofs)
    for enum in message.enum_types:
        yield from names_of_enum(enum, message.full_name)
    for nested in message.nested_types:
        yield from names_of_message(nested)


def names_of_enum(enum: EnumDescriptor, scope: str) -> Iterator[str]:
    yield enum.full_name
    yield from (f"{scope}.{value.name}" for value in enum.values)
    yield from (f"{enum.full_name}.{value.name}" for value in enum.values)


def opened(answer: reflection.ServerReflectionResponse) -> tuple[str, DescriptorPool]:
    """The first file's name, and a pool that takes in all of the answer: nothing in it lacks an import."""
    assert answer.WhichOneof("message_response") == "file_descriptor_response", answer.error_response
    files = [FileDescriptorProto.FromString(raw) for raw in answer.file_descriptor_response.file_descriptor_proto]
    pool, pending = DescriptorPool(), list(files)
    while pending:
        ready = [file for file in pending if not {other.name for other in pending} & set(file.dependency)]
        assert ready
        for file in ready:
            pool.Add(file)
        pending = [file for file in pending if file not in ready]
    pool.FindFileByName(files[0].name)
    return files[0].name, pool


@pytest.mark.parametrize(
    "file",
    [
        recommendation_pb2.DESCRIPTOR,
        event_pb2.DESCRIPTOR,
        experiment_pb2.DESCRIPTOR,
        health_pb2.DESCRIPTOR,
        error_details_pb2.DESCRIPTOR,  # what the details of an error are made of
    ],
    ids=lambda file: file.name,
)
async def test_every_symbol_leads_to_its_file(ask, file: FileDescriptor) -> None:
    names = list(names_of(file))
    assert len(names) > 10
    answers = await ask(*(Request(file_containing_symbol=name) for name in names))
    assert {name: opened(answer)[0] for name, answer in zip(names, answers, strict=True)} == dict.fromkeys(
        names, file.name
    )


async def test_reflection_describes_both_of_its_versions(ask) -> None:
    names = [f"grpc.reflection.{version}.ServerReflection" for version in VERSIONS]
    questions = [f"{name}{member}" for name in names for member in ("", ".ServerReflectionInfo")]
    answers = await ask(*(Request(file_containing_symbol=name) for name in questions))
    for name, answer in zip(questions, answers, strict=True):
        service = opened(answer)[1].FindServiceByName(name.removesuffix(".ServerReflectionInfo"))
        assert service.methods[0].input_type.full_name == service.full_name + "Request"


async def test_services_are_listed(ask) -> None:
    (answer,) = await ask(Request(list_services=""))
    assert [service.name for service in answer.list_services_response.service] == [
        "engine.v1.EventService",
        "engine.v1.ExperimentService",
        "engine.v1.RecommendationService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ]


async def test_files_are_found_by_name_with_their_imports(ask) -> None:
    names = ["engine/v1/recommendation.proto", "google/protobuf/timestamp.proto", "google/rpc/error_details.proto"]
    answers = await ask(*(Request(file_by_filename=name) for name in names))
    assert [opened(answer)[0] for answer in answers] == names
    assert opened(answers[0])[1].FindMessageTypeByName("google.protobuf.Timestamp")


async def test_what_is_not_there_is_said_and_the_stream_goes_on(ask) -> None:
    extension = reflection.ExtensionRequest(containing_type="engine.v1.Event", extension_number=1000)
    questions = [
        Request(host="a", file_containing_symbol="engine.v1.Nothing"),
        Request(file_containing_symbol="engine.v1.EventService.Nothing"),
        Request(file_containing_symbol="engine.v1"),
        Request(file_containing_symbol=""),
        Request(file_by_filename="engine/v1/nothing.proto"),
        Request(file_containing_extension=extension),
        Request(all_extension_numbers_of_type="engine.v1.Nothing"),
        Request(),
        Request(all_extension_numbers_of_type="engine.v1.Event"),
    ]
    answers = await ask(*questions)
    assert [answer.original_request for answer in answers] == questions
    assert answers[0].valid_host == "a"
    codes = [answer.error_response.error_code for answer in answers]
    not_found, invalid = (code.value[0] for code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT))
    assert codes == [not_found] * 7 + [invalid, 0]
    assert "'engine.v1.Nothing'" in answers[0].error_response.error_message
    assert answers[-1].all_extension_numbers_response.base_type_name == "engine.v1.Event"
    assert not answers[-1].all_extension_numbers_response.extension_number


class TestFileIndex:
    """What the engine's own files do not have: extensions."""

    @pytest.fixture
    def index(self) -> FileIndex:
        base = FileDescriptorProto(name="base.proto", package="a")
        message = base.message_type.add(name="Base")
        message.extension_range.add(start=100, end=200)
        more = FileDescriptorProto(name="more.proto", package="b", dependency=["base.proto"])
        more.extension.add(name="outer", extendee=".a.Base", number=101, type=FieldDescriptorProto.TYPE_STRING)
        scope = more.message_type.add(name="Scope")
        scope.extension.add(name="inner", extendee=".a.Base", number=100, type=FieldDescriptorProto.TYPE_STRING)
        return FileIndex([base, more])

    def test_by_number(self, index: FileIndex) -> None:
        assert [file.name for file in index.by_extension("a.Base", 100)] == ["more.proto", "base.proto"]
        assert index.extension_numbers("a.Base") == [100, 101]
        assert index.extension_numbers("b.Scope") == []

    @pytest.mark.parametrize("symbol", ["b.outer", "b.Scope.inner"])
    def test_by_symbol(self, index: FileIndex, symbol: str) -> None:
        assert index.by_symbol(symbol)[0].name == "more.proto"

    def test_unknown_number(self, index: FileIndex) -> None:
        with pytest.raises(UnknownName, match=r"extension 102 of 'a.Base'"):
            index.by_extension("a.Base", 102)
