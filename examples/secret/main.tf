# The API key in a secret: it is neither in the state nor in the function's environment.
# To change it, raise secret_string_wo_version and apply with the new one.

provider "aws" {
  region = "us-east-1"
}

variable "ddg_api_key" {
  type      = string
  default   = null # needed when the version changes; not to plan, not to destroy
  sensitive = true
  ephemeral = true
}

resource "aws_secretsmanager_secret" "api_key" {
  name_prefix             = "datadog-api-key-"
  recovery_window_in_days = 0
}

resource "aws_secretsmanager_secret_version" "api_key" {
  secret_id                = aws_secretsmanager_secret.api_key.id
  secret_string_wo         = var.ddg_api_key
  secret_string_wo_version = 1
}

module "ddg_stats" {
  source = "../.."

  name                   = "my-stats"
  ddg_api_key_secret_arn = aws_secretsmanager_secret_version.api_key.arn
}
