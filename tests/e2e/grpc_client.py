"""A gRPC client without proto files: it asks the server's reflection service what there is, as grpcurl does."""
import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class ReflectionClient:
    def __init__(self, address, channel=None):
        self.address = address
        self.channel = channel or grpc.insecure_channel(address)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def services(self):
        return sorted(self.database.get_services())

    def health(self, service=""):
        stub = health_pb2_grpc.HealthStub(self.channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)

    def call(self, method, request, timeout=60, metadata=()):
        """Calls "package.Service/Method" with a dict; a list of dicts for streaming methods."""
        service_name, method_name = method.split("/")
        descriptor = self.pool.FindServiceByName(service_name).FindMethodByName(method_name)
        make = lambda d: message_factory.GetMessageClass(d)
        message = json_format.ParseDict(request, make(descriptor.input_type)())
        kind = self.channel.unary_stream if descriptor.server_streaming else self.channel.unary_unary
        stub = kind("/" + method, request_serializer=lambda m: m.SerializeToString(),
                    response_deserializer=make(descriptor.output_type).FromString)
        reply = stub(message, timeout=timeout, metadata=metadata)
        to_dict = lambda m: json_format.MessageToDict(m, preserving_proto_field_name=True)
        return (to_dict(m) for m in reply) if descriptor.server_streaming else to_dict(reply)

    def generate(self, text, **fields):
        """The whole text and the last message of a chat with one user message."""
        request = {"chat": {"messages": [{"role": "user", "content": text}]}, **fields}
        parts = list(self.call("dovetail.v1.InferenceService/Generate", request))
        return "".join(p.get("text", "") for p in parts), parts[-1]

    def close(self):
        self.channel.close()


def status(address):
    client = ReflectionClient(address)
    try:
        return client.call("dovetail.v1.AdminService/GetStatus", {}, timeout=5)
    finally:
        client.close()
