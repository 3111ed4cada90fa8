"""Air-Executor for Airflow: one Airflow task waits for a job of any number of tasks, with no slot held."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def _text(label: str, description: str, secret: bool = False) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": ["string", "null"]}
    if secret:
        schema["format"] = "password"
    return {"label": label, "description": description, "schema": schema}


def get_provider_info() -> dict[str, Any]:
    """What Airflow is told of this package: see its ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-air-executor",
        "name": "Air-Executor",
        "description": "Durable jobs of tasks on NATS: submit them, wait for them, without a slot held.",
        "versions": [__version__],
        "integrations": [{"integration-name": "Air-Executor", "tags": ["service"]}],
        "operators": [{"integration-name": "Air-Executor", "python-modules": ["air_executor_provider.operator"]}],
        "sensors": [{"integration-name": "Air-Executor", "python-modules": ["air_executor_provider.sensor"]}],
        "hooks": [{"integration-name": "Air-Executor", "python-modules": ["air_executor_provider.hook"]}],
        "triggers": [{"integration-name": "Air-Executor", "python-modules": ["air_executor_provider.trigger"]}],
        "extra-links": ["air_executor_provider.operator.AirExecutorJobLink"],
        "connection-types": [
            {
                "connection-type": "air_executor",
                "hook-class-name": "air_executor_provider.hook.AirExecutorHook",
                "hook-name": "Air-Executor",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {"host": "Servers", "login": "User", "port": "Port of servers that name none"},
                    "placeholders": {"host": "nats://a:4222,nats://b:4222", "port": "4222"},
                },
                "conn-fields": {
                    "token": _text("Token", "Instead of user and password.", secret=True),
                    "creds_file": _text("Credentials file", "Path of a .creds file, on workers and triggerers."),
                    "creds": _text("Credentials", "The text of a .creds file.", secret=True),
                    "nkey_file": _text("NKEY file", "Path of a file with an NKEY seed, on workers and triggerers."),
                    "nkey_seed": _text("NKEY seed", "The seed itself, SU...", secret=True),
                    "tls": {
                        "label": "TLS",
                        "description": "Demand TLS; a CA or a certificate demands it as well.",
                        "schema": {"type": ["boolean", "null"]},
                    },
                    "tls_ca": _text("CA file", "Path of the certificates to trust; the system's by default."),
                    "tls_cert": _text("Certificate file", "Path of the client's certificate."),
                    "tls_key": _text("Key file", "Path of the client's key."),
                    "tls_hostname": _text("TLS host name", "Name to expect in the server's certificate."),
                    "prefix": _text("Prefix", "Of the installation's names; air by default."),
                    "dashboard": _text(
                        "Dashboard",
                        "Address of the dashboard; {job} and {task} in it are filled in, else #/jobs/JOB is added.",
                    ),
                },
            }
        ],
    }
